package casemap

import "testing"

func TestFold(t *testing.T) {
	for _, test := range []struct{ mapping, in, want string }{
		{"rfc1459", "ABCXYZ[]\\^", "abcxyz{}|~"},
		{"rfc1459", "ÀTEST{}~|", "Àtest{}~|"},
		{"", "@?A_`#&", "@?a_`#&"},
		{"strict-rfc1459", "TEST[]\\^", "test{}|^"},
		{"rfc1459-strict", "A^~", "a^~"},
		{"ascii", "TEST[]\\^{}~|#&", "test[]\\^{}~|#&"},
		{"ascii", "ПРИВЕТ", "ПРИВЕТ"},
		{"precis", "ПРИВЕТ[A", "привет[a"},
		{"never heard of", "A[", "a["},
	} {
		if got := Of(test.mapping).Fold(test.in); got != test.want {
			t.Errorf("%s: %q becomes %q, want %q", test.mapping, test.in, got, test.want)
		}
	}
}
