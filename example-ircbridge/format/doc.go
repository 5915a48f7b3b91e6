// Package format turns Matrix text into IRC text and back.
package format
