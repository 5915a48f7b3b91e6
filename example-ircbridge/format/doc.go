// Package format turns Matrix messages into IRC text and IRC text into Matrix messages.
//
// IRC text is one or more lines of UTF-8 with mIRC formatting codes and no other control characters; the codes are
// described at https://modern.ircdocs.horse/formatting. Matrix text is a plain body with, or without, a body of
// format org.matrix.custom.html (client-server API, "m.room.message msgtypes").
//
// Everything here is a pure function: no goroutines, no state.
//
//	line := format.FromMatrix("hello world", "hello <b>world</b>", false) // "hello \x02world\x02"
//	body, html := format.ToMatrix("hello \x02world")                       // "hello world", "hello <strong>world</strong>"
//	parts := format.Split(line, 400)                                       // each at most 400 bytes
package format
