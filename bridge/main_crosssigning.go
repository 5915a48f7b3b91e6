package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// crossSigningCommand gives one of the bridge's users new cross-signing keys, or shows the recovery key of those it has.
func (p *program) crossSigningCommand(f *flag.FlagSet) func() int {
	yes := f.Bool("yes", false, "do it; without, nothing is done")
	recovery := f.Bool("recovery-key", false, "make no new keys, but a recovery key for those there are, and show it")
	user := f.String("user", "", "whose: the bot's, or those of a `@ghost:server`")
	return func() int {
		cfg, status := p.load()
		if cfg == nil {
			return status
		}
		bot := id.NewUserID(cfg.Appservice.Bot, cfg.Homeserver.Domain)
		whose := id.UserID(*user)
		if whose == "" {
			whose = bot
		}
		registration, err := appservice.LoadRegistration(cfg.Appservice.Registration)
		switch {
		case err != nil:
			fmt.Fprintln(p.stderr, err)
			return exitWrong
		case !hasOlm:
			return p.wrong(crypto.ErrNoOlm.Error())
		case !cfg.encrypts():
			return p.wrong("encryption.mode is off, and no entry of bridge.plumb has another: keys are not used; write the mode that they are for, bot or ghosts")
		case whose[0] != '@':
			return p.wrong("-user %q is not the ID of a user: write it as @name:server", *user)
		case *yes && *recovery:
			return p.wrong("-yes makes new keys, and shows their recovery key; -recovery-key makes no new ones: write one of them")
		case !*yes && !*recovery:
			fmt.Fprintf(p.stdout, "%s gets new cross-signing keys, in place of those that it has on the homeserver. Whoever has verified it must do so\n"+
				"again. Stop the bridge before, and write -yes.\n\nNothing was done.\n", whose)
			return exitOK
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		key, err := p.resetCrossSigning(ctx, cfg, registration, whose, !*recovery)
		if err != nil {
			fmt.Fprintln(p.stderr, err)
			return exitFailed
		}
		if !*recovery {
			fmt.Fprintf(p.stdout, "%s has new cross-signing keys.\n\n", whose)
		}
		fmt.Fprintf(p.stdout, "Recovery key, which opens them in any client and is shown this once: keep it where nobody finds it.\n\n  %s\n", key)
		return exitOK
	}
}

// resetCrossSigning does it, in the place of the bridge, and gives the recovery key.
func (p *program) resetCrossSigning(ctx context.Context, cfg *Config, r *appservice.Registration, user id.UserID, anew bool) (key string, err error) {
	s, _, done, err := p.alone(ctx, cfg, r)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	as, err := appservice.New(appservice.Config{
		Registration: r, HomeserverURL: cfg.Homeserver.Address, ServerName: cfg.Homeserver.Domain, Store: s,
		Handler: nobody{}, Log: zerolog.Nop(), DeviceMode: cfg.Appservice.DeviceMode,
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = as.Stop(context.WithoutCancel(ctx)) }()
	if user != as.Bot().UserID() && !as.IsGhost(user) {
		return "", fmt.Errorf("%s is neither the bridge's bot nor one of its ghosts", user)
	}
	if _, err := s.Ghost(ctx, string(user)); errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("the bridge has never made %s", user)
	} else if err != nil {
		return "", err
	}
	// What somebody has to approve, and where, is said in a warning.
	warnings := zerolog.New(zerolog.ConsoleWriter{Out: p.stderr, NoColor: true, PartsExclude: []string{zerolog.TimestampFieldName}}).Level(zerolog.WarnLevel)
	keys, err := newCipher(ctx, cfg, s, as, warnings)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	shown, ok := any(keys).(interface {
		RecoveryKey(ctx context.Context, user id.UserID) (string, error)
	})
	if !ok {
		return "", errors.New("this version has no cross-signing keys")
	}
	if anew {
		if err := keys.ResetCrossSigning(ctx, user); err != nil {
			return "", err
		}
	}
	return shown.RecoveryKey(ctx, user)
}
