package bridge

import (
	"cmp"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCommand prints what a report of a fault has to say.
func (p *program) versionCommand(*flag.FlagSet) func() int {
	return func() int {
		info := p.network.Info()
		fmt.Fprintf(p.stdout, "%s bridge %s\n", info.Name, cmp.Or(info.Version, "(no version)"))
		framework, commit := buildOf(debug.ReadBuildInfo())
		fmt.Fprintf(p.stdout, "framework   %s\ncommit      %s\nGo          %s %s/%s\nSQLite      %s\nencryption  %s\n",
			framework, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, sqliteDriver, encryption())
		return exitOK
	}
}

// encryption says what this build does with encrypted rooms; see package crypto.
func encryption() string {
	if hasOlm {
		return "built in"
	}
	return "not built in: the bot says so in encrypted rooms; build with -tags goolm for it"
}

const frameworkModule = "github.com/trestle-bridge/trestle"

// buildOf finds the framework's version, and the commit that the program was built from.
func buildOf(build *debug.BuildInfo, ok bool) (framework, commit string) {
	framework, commit = "unknown", "unknown"
	if !ok {
		return framework, commit
	}
	for _, module := range append([]*debug.Module{&build.Main}, build.Deps...) {
		if module.Path == frameworkModule {
			framework = cmp.Or(module.Version, framework)
		}
	}
	changed := false
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			commit = setting.Value
		case "vcs.modified":
			changed = setting.Value == "true"
		}
	}
	if changed {
		commit += " with changes"
	}
	return framework, commit
}
