//go:build goolm

package bridge

// hasOlm says whether this program was built with encryption.
const hasOlm = true
