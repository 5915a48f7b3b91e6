package bridge

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// The exit statuses of [Main].
const (
	exitOK     = 0 // it was done, or the bridge was stopped and everything under way was finished
	exitFailed = 1 // it could not be done: a listener or database failed, or check found something that does not work
	exitWrong  = 2 // a mistake in the command line, the configuration or the registration; nothing was started
	exitForced = 3 // a second signal came before everything under way was finished; the rest waits in the database
)

// Main is the command line of a bridge, and the whole main function of one:
//
//	func main() { bridge.Main(mynetwork.New()) }
//
// Its subcommands are config (writes a commented configuration), registration (writes the file that the homeserver needs),
// check (finds every mistake and tries every connection), run, deadletters (lists, shows, replays and drops what could not
// be delivered), media (lists, revokes and signs links to media, and has their keys), both while the bridge runs or not,
// proxy (answers those links in a process of its own), reset-cross-signing
// (new keys for the bot), uninstall (removes what the bridge made), version and help. Each takes -config FILE, by default config.yaml.
// The first SIGTERM or SIGINT makes run and proxy finish what is under way; a second one ends it at once.
//
// The exit status is 0 when all went well, 1 when something failed, 2 when the command line, the configuration or the
// registration has mistakes, and 3 when a second signal ended it.
func Main(n Network) {
	os.Exit(run(n, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// program is one call of the command line.
type program struct {
	network Network
	env     []string
	stdout  io.Writer
	stderr  io.Writer
	config  string   // path of the configuration file
	called  []string // the subcommand's name, behind those of the ones it is below
	args    []string // what is no option; only where a subcommand takes such

	patience time.Duration // checkPatience, except in tests
}

// subcommand is what the first argument names.
type subcommand struct {
	name, help string
	flags      func(p *program, f *flag.FlagSet) func() int // defines flags; what it returns does the work
	args       string                                       // what its arguments are, "ID…"; empty: it takes none
	below      []subcommand                                 // what the next argument names; flags is nil then
}

func subcommands() []subcommand {
	return []subcommand{
		{name: "config", help: "write a commented configuration to start from", flags: (*program).configCommand},
		{name: "registration", help: "write the registration file that the homeserver needs", flags: (*program).registrationCommand},
		{name: "check", help: "find every mistake, and try every connection", flags: (*program).checkCommand},
		{name: "run", help: "run the bridge", flags: (*program).runCommand},
		{name: "deadletters", help: "list, show, replay or drop what could not be delivered", below: letterSubcommands()},
		{name: "media", help: "list, revoke or sign links to media; keys: the keys that sign them", below: mediaSubcommands()},
		{name: "proxy", help: "answer links to media, in a process of its own", flags: (*program).proxyCommand},
		{name: "reset-cross-signing", help: "give the bot, or a ghost, new cross-signing keys and a recovery key", flags: (*program).crossSigningCommand},
		{name: "uninstall", help: "remove what the bridge made on the homeserver, or say what that is", flags: (*program).uninstallCommand},
		{name: "version", help: "print what this is made of", flags: (*program).versionCommand},
	}
}

// run is [Main] without the process around it.
func run(n Network, args, env []string, _ io.Reader, stdout, stderr io.Writer) int {
	return (&program{network: n, env: env, stdout: stdout, stderr: stderr, patience: checkPatience}).run(args)
}

func (p *program) run(args []string) int {
	if len(args) == 0 {
		p.usage(p.stderr)
		return exitWrong
	}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		p.usage(p.stdout)
		return exitOK
	case "-version", "--version":
		name = "version"
	}
	return p.choose(subcommands(), name, args[1:])
}

// choose does what name names among list.
func (p *program) choose(list []subcommand, name string, args []string) int {
	at := slices.IndexFunc(list, func(c subcommand) bool { return c.name == name })
	if at < 0 {
		var names []string
		for _, c := range list {
			names = append(names, c.name)
		}
		mend := "write one of " + strings.Join(names, ", ")
		if near := nearest(name, names); near != "" {
			mend = "write " + near
		}
		fmt.Fprintf(p.stderr, "there is no subcommand %q; %s\n", name, mend)
		return exitWrong
	}
	return p.subcommand(list[at], args)
}

func (p *program) subcommand(c subcommand, args []string) int {
	p.called = append(p.called, c.name)
	if c.below != nil {
		return p.subcommandBelow(c, args)
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(p.stderr)
	flags.Usage = func() {} // printed below: to stdout when it was asked for
	flags.StringVar(&p.config, "config", "config.yaml", "the configuration `FILE`")
	work := c.flags(p, flags)
	for {
		switch err := flags.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			p.usageOf(c, flags, p.stdout)
			return exitOK
		case err != nil:
			p.usageOf(c, flags, p.stderr)
			return exitWrong
		case flags.NArg() == 0:
			return work()
		case c.args == "":
			fmt.Fprintf(p.stderr, "%s takes no argument %q; write options with a - before them, such as -config FILE\n", strings.Join(p.called, " "), flags.Arg(0))
			return exitWrong
		}
		// Options may stand behind arguments, as people write them.
		p.args = append(p.args, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

// usageOf prints what a subcommand does, and its options.
func (p *program) usageOf(c subcommand, flags *flag.FlagSet, w io.Writer) {
	usage := append([]string{"Usage:", programName()}, p.called...)
	if c.args != "" {
		usage = append(usage, c.args)
	}
	fmt.Fprintf(w, "%s [options]\n\n  %s\n\n", strings.Join(usage, " "), c.help)
	flags.SetOutput(w)
	flags.PrintDefaults()
}

// subcommandBelow chooses by the next argument.
func (p *program) subcommandBelow(c subcommand, args []string) int {
	help := len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0])
	if len(args) > 0 && !help {
		return p.choose(c.below, args[0], args[1:])
	}
	status, w := exitOK, p.stdout
	if !help {
		status, w = exitWrong, p.stderr
	}
	fmt.Fprintf(w, "Usage: %s %s SUBCOMMAND [options]\n\n", programName(), strings.Join(p.called, " "))
	for _, b := range c.below {
		fmt.Fprintf(w, "  %-14s%s\n", strings.TrimSpace(b.name+" "+b.args), b.help)
	}
	fmt.Fprintf(w, "\nSUBCOMMAND -help lists a subcommand's options.\n")
	return status
}

func (p *program) usage(w io.Writer) {
	info := p.network.Info()
	fmt.Fprintf(w, "A bridge between Matrix and %s.\n\nUsage: %s SUBCOMMAND [-config FILE]\n\n", info.Name, programName())
	for _, c := range subcommands() {
		fmt.Fprintf(w, "  %-21s%s\n", c.name, c.help)
	}
	fmt.Fprintf(w, "  %-21s%s\n", "help", "print this")
	fmt.Fprintf(w, `
-config is config.yaml unless given. SUBCOMMAND -help lists a subcommand's options.

To begin: config, fill in what it has example.org in, registration, tell the
homeserver about it, check, run.

Exit status: 0 all went well; 1 something failed; 2 a mistake in the command
line, the configuration or the registration; 3 ended by a second signal.
`)
}

func programName() string {
	name := os.Args[0]
	if cut := strings.LastIndexAny(name, `/\`); cut >= 0 {
		name = name[cut+1:]
	}
	return name
}

// load reads the configuration, and prints its mistakes and warnings.
func (p *program) load() (*Config, int) {
	cfg, err := LoadConfig(p.config, p.env, p.network)
	if err != nil {
		p.explain(err)
		return nil, exitWrong
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(p.stderr, "warning: %s\n", w)
	}
	return cfg, exitOK
}

// explain prints why the configuration cannot be used.
func (p *program) explain(err error) {
	fmt.Fprintln(p.stderr, err)
	if mistakes := (*ConfigError)(nil); errors.As(err, &mistakes) {
		fmt.Fprintf(p.stderr, "%s; nothing was done\n", count(len(mistakes.Mistakes), "mistake"))
	} else if mend := p.configMend(err); mend != "" {
		fmt.Fprintln(p.stderr, mend)
	}
}

// configMend says what to do about a configuration that cannot be read; empty when nobody knows.
func (p *program) configMend(err error) string {
	if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return fmt.Sprintf("write it with: %s config -config %s", programName(), p.config)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
