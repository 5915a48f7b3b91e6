package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
)

// called is what a call of the command line left behind.
type called struct {
	status         int
	stdout, stderr string
}

func invoke(n Network, env []string, args ...string) called {
	var stdout, stderr bytes.Buffer
	status := run(n, args, env, strings.NewReader(""), &stdout, &stderr)
	return called{status, stdout.String(), stderr.String()}
}

func (c called) want(t *testing.T, status int, stdout, stderr string) {
	t.Helper()
	if c.status != status || !strings.Contains(c.stdout, stdout) || !strings.Contains(c.stderr, stderr) {
		t.Errorf("got status %d,\nstdout:\n%s\nstderr:\n%s\nwant status %d, %q and %q", c.status, c.stdout, c.stderr, status, stdout, stderr)
	}
}

// writeConfig writes a configuration without mistakes, and more sections.
func writeConfig(t *testing.T, more string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(goodSections+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain_NoOrUnknownSubcommand_IsWrongUsage(t *testing.T) {
	invoke(plainNetwork{}, nil).want(t, exitWrong, "", "registration")
	invoke(plainNetwork{}, nil, "chekc").want(t, exitWrong, "", `there is no subcommand "chekc"; write check`)
	invoke(plainNetwork{}, nil, "frobnicate").want(t, exitWrong, "", "write one of config, registration, check, run, deadletters, media, proxy, reset-cross-signing, uninstall, version")
	invoke(plainNetwork{}, nil, "run", "config.yaml").want(t, exitWrong, "", `run takes no argument "config.yaml"`)
	invoke(plainNetwork{}, nil, "media", "list", "17").want(t, exitWrong, "", `media list takes no argument "17"`)
	invoke(plainNetwork{}, nil, "run", "-cofnig", "x").want(t, exitWrong, "", "-cofnig")
}

func TestMain_Help_NamesEverySubcommandAndStatus(t *testing.T) {
	for _, name := range []string{"help", "-h", "--help"} {
		got := invoke(plainNetwork{}, nil, name)
		got.want(t, exitOK, "Exit status:", "")
		for _, c := range subcommands() {
			if !strings.Contains(got.stdout, "\n  "+c.name+" ") {
				t.Errorf("%s does not name %s", name, c.name)
			}
		}
	}
	invoke(plainNetwork{}, nil, "registration", "-help").want(t, exitOK, "-out FILE", "")
	for _, c := range []struct{ args, usage string }{
		{"run", "run [options]"}, {"media keys", "media keys SUBCOMMAND [options]"},
		{"media list", "media list [options]"}, {"media keys retire", "media keys retire ID… [options]"},
	} {
		invoke(plainNetwork{}, nil, append(strings.Fields(c.args), "-help")...).want(t, exitOK, "Usage: "+programName()+" "+c.usage, "")
	}
}

func TestMain_Version_SaysWhatItIsMadeOf(t *testing.T) {
	got := invoke(plainNetwork{}, nil, "version")
	got.want(t, exitOK, "Tin Can bridge 1.2.3\n", "")
	for _, line := range []string{"framework ", "commit ", "Go          go1.", "SQLite      " + sqliteDriver, map[bool]string{true: "encryption  built in\n", false: "encryption  not built in: "}[hasOlm]} {
		if !strings.Contains(got.stdout, line) {
			t.Errorf("%q is not in\n%s", line, got.stdout)
		}
	}
}

func TestMain_BuildInfo_GivesVersionAndCommit(t *testing.T) {
	own := &debug.BuildInfo{Main: debug.Module{Path: frameworkModule, Version: "v1.0.0"}, Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	embedded := &debug.BuildInfo{Main: debug.Module{Path: "example.org/bridge", Version: "v9"}, Deps: []*debug.Module{{Path: frameworkModule, Version: "v1.1.0"}}}
	for _, c := range []struct {
		build             *debug.BuildInfo
		framework, commit string
	}{{own, "v1.0.0", "abc with changes"}, {embedded, "v1.1.0", "unknown"}} {
		if framework, commit := buildOf(c.build, true); framework != c.framework || commit != c.commit {
			t.Errorf("got %s and %s, want %s and %s", framework, commit, c.framework, c.commit)
		}
	}
}

func TestMain_Config_WritesOnceForItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	invoke(&settledNetwork{}, nil, "config", "-config", path).want(t, exitOK, path, "")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	invoke(&settledNetwork{}, nil, "config", "-out", path).want(t, exitFailed, "", "it is left as it is")
	if content, err := os.ReadFile(path); err != nil || string(content) != "mine" {
		t.Errorf("it became %q, %v", content, err)
	}
	printed := invoke(&settledNetwork{}, nil, "config", "-print")
	if printed.status != exitOK || printed.stdout != string(ExampleConfig(&settledNetwork{})) {
		t.Error("-print prints something else than the example")
	}
}

func TestMain_MissingConfiguration_SaysHowToMakeOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	for _, name := range []string{"run", "registration"} {
		invoke(plainNetwork{}, nil, name, "-config", path).want(t, exitWrong, "", "config -config "+path)
	}
	invoke(plainNetwork{}, nil, "check", "-config", path).want(t, exitWrong, "→ write it with: "+programName()+" config -config "+path, "")
}

func TestMain_Run_WrongConfiguration_StartsNothing(t *testing.T) {
	path := writeConfig(t, "log: {level: loud}\nmedia: {lifetme: 1d}\n")
	got := invoke(&settledNetwork{}, []string{"TRESTLE_NONSENSE=1"}, "run", "-config", path)
	got.want(t, exitWrong, "", "3 mistakes; nothing was done")
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("files were made: %v, %v", entries, err)
	}
}

func TestMain_Run_WithoutOrWithAnotherRegistration_StartsNothing(t *testing.T) {
	path := writeConfig(t, "")
	invoke(&settledNetwork{}, nil, "run", "-config", path).want(t, exitWrong, "", "there is no registration; make it with")
	invoke(&settledNetwork{}, nil, "registration", "-config", path).want(t, exitOK, "", "")
	invoke(&settledNetwork{}, []string{"TRESTLE_APPSERVICE_BOT=other"}, "run", "-config", path).
		want(t, exitWrong, "", `sender_localpart: is "tinbot", and the configuration has "other" in appservice.bot`)
}

func TestMain_Proxy_BeforeTheFirstRun_SaysWhatIsMissing(t *testing.T) {
	path := writeConfig(t, "media: {public_url: https://media.trestle.test}\n")
	invoke(&settledNetwork{}, nil, "registration", "-config", path).want(t, exitOK, "", "")
	invoke(&settledNetwork{}, nil, "proxy", "-config", path).want(t, exitWrong, "", "write where to listen: proxy -listen 127.0.0.1:29401")
	invoke(&settledNetwork{}, nil, "proxy", "-config", path, "-listen", "127.0.0.1:0").want(t, exitFailed, "", "the bridge has not run yet")
}

func TestRegistration_Written_IsReadBackAndNeverReplaced(t *testing.T) {
	path := writeConfig(t, "appservice: {listen: 127.0.0.1:5000, id: tin2}\n")
	got := invoke(&settledNetwork{}, nil, "registration", "-config", path)
	file := filepath.Join(filepath.Dir(path), "registration.yaml")
	for _, step := range []string{"app_service_config_files:\n      - " + file, "config_files:\n        - " + file, "check -config " + path} {
		got.want(t, exitOK, step, "")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	r, err := appservice.LoadRegistration(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.stdout+got.stderr, r.ASToken) || strings.Contains(got.stdout+got.stderr, r.HSToken) {
		t.Error("a token was printed")
	}
	cfg, err := LoadConfig(path, nil, &settledNetwork{})
	if err != nil {
		t.Fatal(err)
	}
	if list := compareRegistration(cfg, r, nil); len(list) != 0 {
		t.Errorf("it does not agree with the configuration it was made from: %v", list)
	}
	before, _ := os.ReadFile(file)
	invoke(&settledNetwork{}, nil, "registration", "-config", path).want(t, exitFailed, "", "nothing was changed")
	if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
		t.Error("it was replaced")
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	invoke(&settledNetwork{}, nil, "registration", "-config", path, "-out", other).want(t, exitOK, "Wrote "+other, "")
}

func TestRegistration_EveryContradiction_IsNamedWithItsLine(t *testing.T) {
	path := writeConfig(t, "")
	invoke(&settledNetwork{}, nil, "registration", "-config", path).want(t, exitOK, "", "")
	cfg, err := LoadConfig(path, []string{
		"TRESTLE_APPSERVICE_ID=x", "TRESTLE_APPSERVICE_ADDRESS=http://x:1", "TRESTLE_APPSERVICE_BOT=xbot", "TRESTLE_APPSERVICE_GHOSTS=ghost_",
	}, &settledNetwork{})
	if err != nil {
		t.Fatal(err)
	}
	list := registrationMistakes(cfg, nil)
	content, _ := os.ReadFile(cfg.Appservice.Registration)
	lines := strings.Split(string(content), "\n")
	for _, field := range []string{"id", "url", "sender_localpart", "namespaces"} {
		at := -1
		for i := range lines {
			if strings.HasPrefix(lines[i], field+":") {
				at = i + 1
			}
		}
		found := false
		for _, err := range list {
			found = found || strings.HasPrefix(err.Error(), cfg.Appservice.Registration+":"+strconv.Itoa(at)+": "+field+": ")
		}
		if !found {
			t.Errorf("%s (line %d) is not in %v", field, at, list)
		}
	}
	if len(list) != 4 {
		t.Errorf("got %d mistakes: %v", len(list), list)
	}
}

func TestRegistration_NamespaceThatIsTooWideOrOpen_IsAMistake(t *testing.T) {
	cfg := DefaultConfig(plainNetwork{}.Info())
	cfg.Homeserver.Domain = "trestle.test"
	r := &appservice.Registration{ID: "tin", URL: cfg.Appservice.Address, SenderLocalpart: "tinbot", ReceiveEphemeral: true}
	for _, c := range []struct {
		namespace appservice.Namespace
		want      string
	}{
		{appservice.Namespace{Exclusive: true, Regex: "@.*"}, "nobody could register"},
		{appservice.Namespace{Exclusive: false, Regex: "@tin_.*"}, "write exclusive: true"},
		{appservice.Namespace{Exclusive: true, Regex: "@tin_[a-z]+:trestle\\.test"}, "no regex of users takes in the ghosts"},
		{appservice.Namespace{Exclusive: true, Regex: "tin_.*:trestle\\.test"}, "no regex of users takes in the ghosts"},
		{appservice.Namespace{Exclusive: true, Regex: "@tin_.*:trestle\\.test"}, ""},
	} {
		r.Namespaces.Users = []appservice.Namespace{c.namespace}
		list := compareRegistration(cfg, r, nil)
		if c.want == "" && len(list) != 0 || c.want != "" && (len(list) != 1 || !strings.Contains(list[0].Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.namespace.Regex, list, c.want)
		}
	}
}

// fakeBridge ends when it is told to.
type fakeBridge struct {
	draining chan struct{}
	finish   chan error
}

func (b *fakeBridge) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		close(b.draining)
	case err := <-b.finish:
		return err
	}
	return <-b.finish
}

func TestMain_FirstSignal_WaitsForWhatIsUnderWay(t *testing.T) {
	b := &fakeBridge{make(chan struct{}), make(chan error)}
	signals, ended := make(chan os.Signal, 2), make(chan int)
	go func() { ended <- runUntilSignal(b, signals, zerolog.Nop()) }()
	signals <- syscall.SIGTERM
	<-b.draining
	select {
	case status := <-ended:
		t.Fatalf("ended with %d before everything was finished", status)
	default:
	}
	b.finish <- nil
	if status := <-ended; status != exitOK {
		t.Errorf("got status %d", status)
	}
}

func TestMain_SecondSignal_EndsAtOnce(t *testing.T) {
	b := &fakeBridge{make(chan struct{}), make(chan error)}
	signals, ended := make(chan os.Signal, 2), make(chan int)
	go func() { ended <- runUntilSignal(b, signals, zerolog.Nop()) }()
	signals <- os.Interrupt
	<-b.draining
	signals <- os.Interrupt
	if status := <-ended; status != exitForced {
		t.Errorf("got status %d", status)
	}
	b.finish <- nil
}

func TestMain_SignalDuringTheStart_IsAStopLikeAnyOther(t *testing.T) {
	b := &fakeBridge{make(chan struct{}), make(chan error)}
	signals, ended := make(chan os.Signal, 2), make(chan int)
	go func() { ended <- runUntilSignal(b, signals, zerolog.Nop()) }()
	signals <- syscall.SIGTERM
	<-b.draining
	b.finish <- fmt.Errorf("waiting for the homeserver: %w", context.Canceled)
	if status := <-ended; status != exitOK {
		t.Errorf("got status %d", status)
	}
}

func TestMain_BridgeThatFails_EndsWithOne(t *testing.T) {
	b := &fakeBridge{make(chan struct{}), make(chan error, 1)}
	b.finish <- errors.New("the listener is gone")
	if status := runUntilSignal(b, nil, zerolog.Nop()); status != exitFailed {
		t.Errorf("got status %d", status)
	}
}

func TestMain_Log_FollowsTheConfiguration(t *testing.T) {
	var stderr bytes.Buffer
	log, closeLog, err := openLog(&LogConfig{Level: "warn", Format: "json"}, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Info().Msg("quiet")
	log.Warn().Msg("loud")
	closeLog()
	if got := stderr.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"message":"loud"`) {
		t.Errorf("got %s", got)
	}
	file := filepath.Join(t.TempDir(), "bridge.log")
	for range 2 {
		log, closeLog, err = openLog(&LogConfig{Level: "info", Format: "pretty", File: file}, &stderr)
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Msg("again")
		closeLog()
	}
	content, err := os.ReadFile(file)
	if err != nil || strings.Count(string(content), "again") != 2 || strings.Contains(string(content), "\x1b") {
		t.Errorf("got %q, %v", content, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, _, err := openLog(&LogConfig{Level: "info", File: filepath.Join(file, "x")}, &stderr); err == nil {
		t.Error("a log below a file was opened")
	}
}
