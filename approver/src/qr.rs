//! QR codes read from a picture. The picture is a file that somebody else made, so its size is
//! limited before it is unpacked.

use png::{ColorType, Decoder, Limits, Transformations};
use zeroize::Zeroizing;

use crate::errors::{Error, Input};

/// The longest side of a picture, in pixels.
const SIDE_MAX: u32 = 4096;

/// The text of the one QR code in a PNG file. It may be an activation, so it is overwritten when
/// dropped; the working memory of the libraries is not.
pub fn read_png(file: &[u8]) -> Result<Zeroizing<String>, Error> {
    let picture = Picture::read(file).ok_or(Input::QrImage)?;
    let mut prepared =
        rqrr::PreparedImage::prepare_from_greyscale(picture.width, picture.height, |x, y| {
            picture.grey[y * picture.width + x]
        });
    let mut texts = prepared.detect_grids().into_iter().filter_map(|grid| grid.decode().ok());
    match (texts.next(), texts.next()) {
        (Some((_, text)), None) => Ok(Zeroizing::new(text)),
        // None that can be read, or two, of which one would be a guess.
        _ => Err(Input::QrImage.into()),
    }
}

struct Picture {
    width: usize,
    height: usize,
    grey: Zeroizing<Vec<u8>>,
}

impl Picture {
    fn read(file: &[u8]) -> Option<Self> {
        let limits = Limits { bytes: 4 * (SIDE_MAX as usize).pow(2) };
        let mut decoder = Decoder::new_with_limits(std::io::Cursor::new(file), limits);
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder.read_info().ok()?;
        let (width, height) = (reader.info().width, reader.info().height);
        if width.max(height) > SIDE_MAX {
            return None;
        }
        let mut bytes = Zeroizing::new(vec![0; reader.output_buffer_size()?]);
        let frame = reader.next_frame(&mut bytes).ok()?;
        let size = match frame.color_type {
            ColorType::Grayscale => 1,
            ColorType::GrayscaleAlpha => 2,
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
            ColorType::Indexed => return None,
        };
        let grey = bytes[..frame.buffer_size()].chunks_exact(size).map(grey).collect();
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        Some(Self { width, height, grey: Zeroizing::new(grey) })
    }
}

/// The brightness of a pixel on white paper.
fn grey(pixel: &[u8]) -> u8 {
    let (colour, alpha) = match pixel {
        [grey] => (u16::from(*grey), 255),
        [grey, alpha] => (u16::from(*grey), u16::from(*alpha)),
        [red, green, blue, rest @ ..] => {
            let sum = u16::from(*red) + 2 * u16::from(*green) + u16::from(*blue);
            (sum / 4, rest.first().map_or(255, |alpha| u16::from(*alpha)))
        }
        [] => (255, 255),
    };
    // At most 255 * 255: it fits.
    u8::try_from((colour * alpha + 255 * (255 - alpha)) / 255).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use semilla_core::qr;

    use super::*;

    const URI: &str =
        "semilla://enroll?server=http%3A%2F%2F127.0.0.1%3A8080&code=7K2M-9QRS-T0VW-XYZ1";

    #[test]
    fn the_qr_code_of_an_activation_is_read_from_its_png() {
        for scale in [2, 4, 8] {
            let file = qr::png(URI, scale).expect("a QR code");
            assert_eq!(*read_png(&file).expect("one code"), URI, "scale {scale}");
        }
    }

    #[test]
    fn a_screenshot_in_colour_with_transparency_is_read_too() {
        let file = qr::png(URI, 4).expect("a QR code");
        let plain = Picture::read(&file).expect("a picture");
        let pixels: Vec<u8> = plain
            .grey
            .iter()
            .flat_map(|grey| if *grey > 127 { [0, 0, 0, 0] } else { [40, 20, 60, 255] })
            .collect();
        let mut coloured = Vec::new();
        let (width, height) = (plain.width as u32, plain.height as u32);
        let mut encoder = png::Encoder::new(&mut coloured, width, height);
        encoder.set_color(ColorType::Rgba);
        let mut writer = encoder.write_header().expect("memory");
        writer.write_image_data(&pixels).expect("memory");
        writer.finish().expect("memory");
        assert_eq!(*read_png(&coloured).expect("one code"), URI);
    }

    #[test]
    fn what_is_no_picture_of_one_code_is_refused() {
        let good = qr::png(URI, 4).expect("a QR code");
        let refused = |file: &[u8]| matches!(read_png(file), Err(Error::Input(Input::QrImage)));
        assert!(refused(b""));
        assert!(refused(b"semilla://enroll"));
        assert!(refused(&good[..good.len() / 2]));
        let mut blank = Vec::new();
        let mut encoder = png::Encoder::new(&mut blank, 64, 64);
        encoder.set_color(ColorType::Grayscale);
        let mut writer = encoder.write_header().expect("memory");
        writer.write_image_data(&[255; 64 * 64]).expect("memory");
        writer.finish().expect("memory");
        assert!(refused(&blank));
    }
}
