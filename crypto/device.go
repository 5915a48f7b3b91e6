package crypto

import (
	"context"
	"fmt"

	"github.com/trestle-bridge/trestle/appservice"
)

// PrepareBot makes sure that the bridge's bot is registered and has its device, the one that keys will belong to. The
// device's ID is stored before it is asked for, so a crash between the two never makes a second one (MSC4190).
func PrepareBot(ctx context.Context, bot *appservice.Intent) error {
	if err := bot.EnsureRegistered(ctx); err != nil {
		return fmt.Errorf("registering the bot %s: %w", bot.UserID(), err)
	}
	if _, err := bot.EnsureDevice(ctx); err != nil {
		return fmt.Errorf("giving the bot %s its device: %w", bot.UserID(), err)
	}
	return nil
}
