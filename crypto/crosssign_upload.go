//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
)

// How often it is tried whether somebody has approved new keys, and for how long (MSC4312: while it is approved, anybody with the account's token can
// replace them).
const (
	approvalPause    = 5 * time.Second
	approvalPatience = 10 * time.Minute
)

// upload sends the keys, without auth: a first upload needs none, nor does one of an appservice (MSC3967, MSC4190). Where the homeserver wants
// somebody to approve it, and an administrator has asked for it, that is waited for.
func (c *crossSigner) upload(ctx context.Context, keys *crypto.CrossSigningKeysCache) error {
	request, err := c.request(keys)
	if err != nil {
		return err
	}
	wanted, err := c.try(ctx, request)
	if err != nil || wanted == nil {
		return err
	}
	url := wanted.approvalURL()
	if url == "" || c.tell == nil {
		return fmt.Errorf("%w (it offers: %s)", ErrApproval, wanted.stages())
	}
	c.tell(url)
	// Nothing but the session: who the user is, they have told the homeserver (MSC4312).
	request.Auth = map[string]string{"session": wanted.Session}
	for until := time.Now().Add(c.patience); time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.pause):
		}
		if wanted, err = c.try(ctx, request); err != nil || wanted == nil {
			return err
		}
	}
	return fmt.Errorf("%w: nobody approved it within %s", ErrApproval, c.patience)
}

// userInteractive is a homeserver's answer that somebody must do something first.
type userInteractive struct {
	Session string `json:"session"`
	Flows   []struct {
		Stages []string `json:"stages"`
	} `json:"flows"`
	Params map[string]struct {
		URL string `json:"url"`
	} `json:"params"`
}

// approvalURL is where to approve it in a browser, the stable stage before the one from before MSC4312 was accepted.
func (u *userInteractive) approvalURL() string {
	for _, stage := range []string{"m.oauth", "org.matrix.cross_signing_reset"} {
		for _, flow := range u.Flows {
			if slices.Equal(flow.Stages, []string{stage}) && u.Params[stage].URL != "" {
				return u.Params[stage].URL
			}
		}
	}
	return ""
}

func (u *userInteractive) stages() (list []string) {
	for _, flow := range u.Flows {
		list = append(list, flow.Stages...)
	}
	return list
}

// try returns what the homeserver wants first, and nil when it has taken the keys.
func (c *crossSigner) try(ctx context.Context, request *mautrix.UploadCrossSigningKeysReq[any]) (*userInteractive, error) {
	cli := c.mach.Client
	content, err := cli.MakeRequest(ctx, http.MethodPost, cli.BuildClientURL("v3", "keys", "device_signing", "upload"), request, nil)
	var refusal mautrix.HTTPError
	if errors.As(err, &refusal) && refusal.IsStatus(http.StatusUnauthorized) {
		wanted := new(userInteractive)
		if json.Unmarshal(content, wanted) == nil && wanted.Flows != nil {
			return wanted, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	return nil, nil
}
