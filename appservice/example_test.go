package appservice_test

import (
	"fmt"

	"github.com/trestle-bridge/trestle/appservice"
)

func ExampleGenerate() {
	reg, err := appservice.Generate(appservice.GenerateOptions{
		ID: "irc", URL: "http://localhost:29400", Domain: "example.org", SenderLocalpart: "ircbot", GhostPrefix: "irc_",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, ns := range reg.Namespaces.Users {
		fmt.Println(ns.Regex)
	}
	// Output:
	// ^@ircbot:example\.org$
	// ^@irc_.*:example\.org$
}

func ExampleParseRegistration() {
	_, err := appservice.ParseRegistration("registration.yaml", []byte("id: 5\nurl: localhost\nas_token: a\nhs_token: b\nsender_localpart: bot\nnamespaces: {users: [{regex: '@x_.*', exclusive: true}]}\n"))
	fmt.Println(err)
	// Output:
	// registration.yaml:1: id: it must be text, and YAML reads it as int; write it in quotes
	// registration.yaml:2: url: it is not an http or https URL; write it like http://localhost:29400
}

func ExampleEscapeLocalpart() {
	localpart := appservice.EscapeLocalpart("Nick[away]")
	nick, err := appservice.UnescapeLocalpart(localpart)
	fmt.Println(localpart, nick, err)
	// Output: =4eick=5baway=5d Nick[away] <nil>
}
