// Package truth is what real homeservers answer to appservices, as data: requests, and of each answer the status, the error
// code and the fields that matter. Synapse's and Dendrite's were measured (1.160.0 and 0.15.2), Continuwuity's and Tuwunel's
// read in their code. The data is in cases/*.yaml, whose first file explains its form.
//
// [Run] holds a homeserver to it: bridgetest's own, for which this is the specification, or a real one. [Compare] makes the
// requests of both, and names what differs. [Pushes] is an appservice that writes down what a homeserver sends it; [Pushed] is
// what Synapse did. COVERAGE.md tells which known fact is held by what.
//
//	truth.Run(t, truth.Target{Personality: bridgetest.Synapse, URL: hs.URL(), Domain: hs.Domain(), Tokens: …})
package truth
