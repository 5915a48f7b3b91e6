package crypto

import "fmt"

// ParseTrust reads what a configuration calls a [Trust]: any, cross-signed or verified. Nothing at all is the default, [TrustCrossSigned].
func ParseTrust(text string) (Trust, error) {
	switch text {
	case "", "cross-signed":
		return TrustCrossSigned, nil
	case "any":
		return TrustAny, nil
	case "verified":
		return TrustVerified, nil
	}
	return 0, fmt.Errorf("the trust %q is none of: any, cross-signed, verified", text)
}

// String is what a configuration calls it.
func (t Trust) String() string {
	switch t {
	case TrustAny:
		return "any"
	case TrustCrossSigned:
		return "cross-signed"
	case TrustVerified:
		return "verified"
	}
	return fmt.Sprintf("Trust(%d)", int(t))
}
