//go:build goolm

package crypto

import (
	"context"
	"time"

	"maunium.net/go/mautrix/crypto"
)

// What tests of keys need: they use a homeserver of bridgetest, and so are outside of the package.
const (
	OutstandingKeys = outstandingKeys
	FewKeys         = fewKeys
	FallbackFor     = fallbackFor

	ApprovalPause    = approvalPause
	ApprovalPatience = approvalPatience
)

type Secrets = secrets

var (
	ShareKeys       = shareKeys
	RepairKeys      = repairKeys
	ReplaceFallback = replaceFallback
)

// CrossSigner is the crossSigner of a machine.
type CrossSigner struct{ c *crossSigner }

func NewCrossSigner(mach *crypto.OlmMachine, s Secrets, tell func(string), patience time.Duration) CrossSigner {
	return CrossSigner{&crossSigner{mach: mach, secrets: s, tell: tell, pause: time.Millisecond, patience: patience}}
}

func (c CrossSigner) Ensure(ctx context.Context) error     { return c.c.ensure(ctx) }
func (c CrossSigner) Reset(ctx context.Context) error      { return c.c.reset(ctx) }
func (c CrossSigner) SignDevice(ctx context.Context) error { return c.c.signDevice(ctx) }
