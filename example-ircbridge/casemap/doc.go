// Package casemap folds the case of IRC names: nicks and channels that a server takes for the same have the same fold.
// Which characters are letters differs by server (ISUPPORT token CASEMAPPING, https://modern.ircdocs.horse/#casemapping-parameter).
//
//	casemap.Of("rfc1459").Fold("#Café[1]") // "#café{1}"
//
// Everything here is a pure function: no goroutines, no state.
package casemap
