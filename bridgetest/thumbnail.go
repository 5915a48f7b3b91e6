package bridgetest

import (
	"bytes"
	"fmt"
	"image"
	_ "image/gif" // decoded when uploaded
	"image/jpeg"
	"image/png"
)

// thumbnail makes a picture fit into width and height, never larger than it was.
func thumbnail(data []byte, width, height int) (mime string, out []byte, err error) {
	src, format, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return "", nil, fmt.Errorf("decoding the picture: %w", err)
	}
	from := src.Bounds()
	scale := min(float64(width)/float64(from.Dx()), float64(height)/float64(from.Dy()), 1)
	to := image.NewRGBA(image.Rect(0, 0, max(int(float64(from.Dx())*scale), 1), max(int(float64(from.Dy())*scale), 1)))
	for y := range to.Bounds().Dy() {
		for x := range to.Bounds().Dx() {
			to.Set(x, y, src.At(from.Min.X+int(float64(x)/scale), from.Min.Y+int(float64(y)/scale)))
		}
	}
	var buf bytes.Buffer
	if format == "jpeg" {
		err = jpeg.Encode(&buf, to, nil)
	} else {
		format, err = "png", png.Encode(&buf, to)
	}
	if err != nil {
		return "", nil, fmt.Errorf("encoding the thumbnail: %w", err)
	}
	return "image/" + format, buf.Bytes(), nil
}
