package appservice

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var example = GenerateOptions{
	ID: "irc", URL: "http://localhost:29400", Domain: "example.org", SenderLocalpart: "ircbot", GhostPrefix: "irc_", AliasPrefix: "irc_", Protocols: []string{"irc"},
}

func TestRegistration_GeneratedAndSaved_LoadsAsItWas(t *testing.T) {
	reg, err := Generate(example)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "registration.yaml")
	if err := reg.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	got, err := LoadRegistration(path)
	if err != nil {
		t.Fatal(err)
	}
	reg.Namespaces.Rooms, got.Namespaces.Rooms = nil, nil
	if !reflect.DeepEqual(reg, got) {
		t.Errorf("saved %+v, loaded %+v", reg, got)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("files are left: %v", left)
	}
}

func generated(t testing.TB) string {
	reg, err := Generate(example)
	if err != nil {
		t.Fatal(err)
	}
	return string(reg.YAML())
}

func TestGenerate_TokensAndNamespaces_AreSafe(t *testing.T) {
	opts := example
	opts.GhostPrefix, opts.Domain = "irc.x+_", "ex.ample.org"
	a, err := Generate(opts)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Generate(opts)
	for _, token := range []string{a.ASToken, a.HSToken} {
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(token) {
			t.Errorf("token %q", token)
		}
	}
	if a.ASToken == a.HSToken || a.ASToken == b.ASToken || a.HSToken == b.HSToken {
		t.Error("tokens repeat")
	}
	ghosts := regexp.MustCompile(a.Namespaces.Users[1].Regex)
	for user, want := range map[string]bool{
		"@irc.x+_nick:ex.ample.org": true, "@ircax+_nick:ex.ample.org": false, "@irc.x+_nick:exxample.org": false,
		"@irc.x+_nick:ex.ample.org.evil": false, "x@irc.x+_nick:ex.ample.org": false,
	} {
		if ghosts.MatchString(user) != want || !a.Namespaces.Users[1].Exclusive {
			t.Errorf("%s: %v", user, !want)
		}
	}
}

func TestGenerate_EveryMistake_IsNamed(t *testing.T) {
	_, err := Generate(GenerateOptions{URL: "nope", SenderLocalpart: "Bad Bot", GhostPrefix: ""})
	for _, want := range []string{"id:", "url:", "domain:", "sender localpart:", "ghost prefix:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestRegistration_Protocols_AreNamesAndThereOnce(t *testing.T) {
	const rest = "id: a\nurl: http://localhost:1\nas_token: a\nhs_token: b\nsender_localpart: bot\nnamespaces: {users: [{regex: '@x_.*', exclusive: true}]}\n"
	for list, want := range map[string]string{
		"[irc, xmpp]": "", "[]": "", "null": "", "irc": "protocols: it must be a list", "[5]": "protocols[0]: it must be text",
		"[irc, irc]": "protocols[1]: it is there already", "['a b']": "protocols[0]: it is no name", "['a/b']": "protocols[0]: it is no name", "['']": "protocols[0]: it is empty",
	} {
		_, err := ParseRegistration("r.yaml", []byte("protocols: "+list+"\n"+rest))
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), "r.yaml:1: "+want)) {
			t.Errorf("%s: %v", list, err)
		}
	}
	if _, err := Generate(GenerateOptions{ID: "a", URL: "http://localhost:1", Domain: "x", SenderLocalpart: "b", GhostPrefix: "c_", Protocols: []string{"a b"}}); err == nil || !strings.Contains(err.Error(), "protocol") {
		t.Error(err)
	}
}

func TestSave_FileIsThere_IsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	reg, _ := Generate(example)
	if err := reg.Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("err %v", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "mine" {
		t.Errorf("the file is now %q", data)
	}
}

func TestLoadRegistration_EveryFieldWrong_NamesThemAllWithLineAndMend(t *testing.T) {
	text := `id: 5
url: localhost
as_token: "with space"
hs_token: ""
sender_localpart: "@Bot"
rate_limited: "no"
receive_ephemeral: 1
io.element.msc4190: [true]
protocols: irc
namespaces:
  users:
    - exclusive: yes please
      regex: "(?=x)"
    - 7
  aliases: {}
  people: []
id: again
sendr: x
com.example.mine: 1
`
	_, err := ParseRegistration("reg.yaml", []byte(text))
	var mistakes Mistakes
	if !errors.As(err, &mistakes) {
		t.Fatal(err)
	}
	want := map[int]string{
		1: "id", 2: "url", 3: "as_token", 4: "hs_token", 5: "sender_localpart", 6: "rate_limited", 7: "receive_ephemeral",
		8: "io.element.msc4190", 9: "protocols", 12: "namespaces.users[0].exclusive", 13: "namespaces.users[0].regex",
		14: "namespaces.users[1]", 15: "namespaces.aliases", 16: "namespaces.people", 17: "id", 18: "sendr",
	}
	got := map[int]string{}
	for _, m := range mistakes {
		got[m.Line] = m.Field
		if m.Mend == "" || m.Problem == "" || !strings.HasPrefix(m.Error(), "reg.yaml:") {
			t.Errorf("incomplete: %v", m)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v\n%v", got, want, err)
	}
	if strings.Contains(err.Error(), "with space") {
		t.Error("a token is in the error")
	}
}

func TestLoadRegistration_MissingFields_AreNamed(t *testing.T) {
	for _, text := range []string{"", "x", "- 1", "id: irc\n", "\tbad", "namespaces: {users: []}\n"} {
		if _, err := ParseRegistration("reg.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "reg.yaml:") {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := ParseRegistration("reg.yaml", []byte("id: irc\n"))
	for _, field := range []string{"url", "as_token", "hs_token", "sender_localpart", "namespaces"} {
		if !strings.Contains(err.Error(), field+": it is missing") {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
	if _, err := LoadRegistration(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestRegistrationExample_IsWhatIsGenerated(t *testing.T) {
	reg, err := Generate(example)
	if err != nil {
		t.Fatal(err)
	}
	reg.ASToken, reg.HSToken = "generate-your-own-as-token", "generate-your-own-hs-token"
	want := "# An example of what `registration` writes. Do not use it as it is: its tokens are known to everybody.\n" + string(reg.YAML())
	path := filepath.Join("..", "registration.yaml.example")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s differs from what is generated (UPDATE_GOLDEN=1 go test writes it): %v\n%s", path, err, want)
	}
	if _, err := LoadRegistration(path); err != nil {
		t.Error(err)
	}
}
