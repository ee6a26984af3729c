//! QR codes (ISO/IEC 18004) for a page, a file and a terminal, with error correction M and the
//! quiet zone of four modules that the standard asks for. Always dark on light, whatever the
//! background: a dark theme must not turn a code around. What is returned is overwritten when
//! dropped, since the text may be a key URI; the working memory of the libraries is not.

use std::fmt::Write;

use qrcode::bits::Bits;
use qrcode::{Color, EcLevel, QrCode, Version};
use zeroize::Zeroizing;

/// The light border, in modules (ISO/IEC 18004 section 6.3.8).
const QUIET_ZONE: usize = 4;

/// Why there is no QR code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQrCode {
    /// More than the largest code holds at this error correction: 2331 bytes.
    #[error("the text is too long for a QR code")]
    TooLong,
    /// No pixels, or more than 40, to a module.
    #[error("a module has 1 to 40 pixels a side")]
    Scale,
}

/// `text` as a PNG file (ISO/IEC 15948): one bit a pixel, `scale` pixels to a module, 1 to 40.
pub fn png(text: &str, scale: u8) -> Result<Zeroizing<Vec<u8>>, NoQrCode> {
    if !(1..=40).contains(&scale) {
        return Err(NoQrCode::Scale);
    }
    let modules = Modules::of(text)?;
    let scale = usize::from(scale);
    let side = modules.side * scale;

    let mut pixels = Zeroizing::new(Vec::with_capacity(side.div_ceil(8) * side));
    let mut row = Zeroizing::new(vec![0; side.div_ceil(8)]);
    for y in 0..modules.side {
        row.fill(0);
        for x in (0..side).filter(|x| !modules.is_dark(x / scale, y)) {
            row[x / 8] |= 0x80 >> (x % 8);
        }
        (0..scale).for_each(|_| pixels.extend_from_slice(&row));
    }

    let mut file = Zeroizing::new(Vec::with_capacity(pixels.len() + 1024));
    write_png(&mut file, side, &pixels).expect("memory takes everything");
    Ok(file)
}

fn write_png(file: &mut Vec<u8>, side: usize, pixels: &[u8]) -> Result<(), png::EncodingError> {
    let side = u32::try_from(side).expect("at most 185 modules of 40 pixels");
    let mut encoder = png::Encoder::new(file, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()
}

/// `text` as an SVG element that can stand in a page or in a file of its own, as large as its
/// surroundings make it. It refers to nothing outside and needs no style sheet or script, so
/// that it passes the strictest content policy.
///
/// `label` is what a screen reader says instead (WAI-ARIA 1.2, role `img`): what the code is for,
/// in the reader's language, and never its content.
pub fn svg(text: &str, label: &str) -> Result<Zeroizing<String>, NoQrCode> {
    let modules = Modules::of(text)?;
    let side = modules.side;
    // A run of one takes at most 16 characters and, with what parts it from the next, two modules.
    let mut svg = Zeroizing::new(String::with_capacity(512 + 6 * label.len() + 9 * side * side));
    append(
        &mut svg,
        format_args!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" "#),
    );
    svg.push_str(r#"shape-rendering="crispEdges" role="img" aria-label=""#);
    for character in label.chars() {
        match character {
            '&' => svg.push_str("&amp;"),
            '<' => svg.push_str("&lt;"),
            '>' => svg.push_str("&gt;"),
            '"' => svg.push_str("&quot;"),
            _ => svg.push(character),
        }
    }
    append(
        &mut svg,
        format_args!(r##""><path fill="#fff" d="M0 0h{side}v{side}H0z"/><path fill="#000" d=""##),
    );
    for y in 0..side {
        let mut x = 0;
        while x < side {
            let run = (x..side).take_while(|x| modules.is_dark(*x, y)).count();
            if run > 0 {
                append(&mut svg, format_args!("M{x} {y}h{run}v1h-{run}z"));
            }
            x += run + 1;
        }
    }
    svg.push_str(r#""/></svg>"#);
    Ok(svg)
}

/// `text` as lines of half blocks, two modules to a character, for a terminal that knows Unicode.
///
/// The light modules are drawn, in white on black, and the colours are set explicitly (ECMA-48
/// SGR, colours 231 and 16, which themes leave alone): right on dark and on light terminals, and
/// where the colours are stripped still right on dark ones.
pub fn terminal(text: &str) -> Result<Zeroizing<String>, NoQrCode> {
    let modules = Modules::of(text)?;
    let side = modules.side;
    let lines = side.div_ceil(2);
    let mut drawn = Zeroizing::new(String::with_capacity(lines * (3 * side + 32)));
    for y in (0..side).step_by(2) {
        drawn.push_str("\u{1b}[38;5;231;48;5;16m");
        for x in 0..side {
            let light = |y| y < side && !modules.is_dark(x, y);
            drawn.push(match (light(y), light(y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawn.push_str("\u{1b}[0m\n");
    }
    Ok(drawn)
}

/// The modules of a code, row by row, quiet zone included.
struct Modules {
    side: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Modules {
    fn of(text: &str) -> Result<Self, NoQrCode> {
        let code = encode(text).ok_or(NoQrCode::TooLong)?;
        let side = code.width() + 2 * QUIET_ZONE;
        let mut dark = Zeroizing::new(vec![false; side * side]);
        for (y, x) in (0..code.width()).flat_map(|y| (0..code.width()).map(move |x| (y, x))) {
            dark[(y + QUIET_ZONE) * side + x + QUIET_ZONE] = code[(x, y)] == Color::Dark;
        }
        Ok(Self { side, dark })
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        self.dark[y * self.side + x]
    }
}

fn encode(text: &str) -> Option<QrCode> {
    if text.is_ascii() {
        return QrCode::with_error_correction_level(text, EcLevel::M).ok();
    }
    // The library takes pairs of UTF-8 bytes for kanji in Shift JIS where they look like it, and
    // readers return those as other bytes: here everything goes in byte mode.
    (1..=40).find_map(|version| {
        let mut bits = Bits::new(Version::Normal(version));
        bits.push_byte_data(text.as_bytes()).ok()?;
        bits.push_terminator(EcLevel::M).ok()?;
        QrCode::with_bits(bits, EcLevel::M).ok()
    })
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 101 bytes: version 6 at error correction M (ISO/IEC 18004 table 7), 41 modules, 49 with the
    /// quiet zone.
    const URI: &str = "otpauth://totp/Banco:laura?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Banco&algorithm=SHA1&digits";
    const SIDE: usize = 49;

    /// The pixels of a PNG file, light or not.
    fn pixels(file: &[u8]) -> (usize, Vec<bool>) {
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG file");
        assert_eq!(reader.output_color_type(), (png::ColorType::Grayscale, png::BitDepth::One));
        let mut bytes = vec![0; reader.output_buffer_size().expect("a small image")];
        let info = reader.next_frame(&mut bytes).expect("an image");
        let side = info.width as usize;
        assert_eq!((info.width, info.line_size), (info.height, side.div_ceil(8)));
        let light = |(y, x)| bytes[y * info.line_size + x / 8] & (0x80_u8 >> (x % 8)) != 0;
        let places = (0..side).flat_map(|y| (0..side).map(move |x| (y, x)));
        (side, places.map(light).collect())
    }

    #[test]
    fn all_three_show_the_same_modules_within_a_quiet_zone() {
        let modules = Modules::of(URI).expect("a code");
        assert_eq!(modules.side, SIDE);
        let border = [0, 1, 2, 3, SIDE - 4, SIDE - 3, SIDE - 2, SIDE - 1];
        for other in 0..SIDE {
            for near in border {
                assert!(!modules.is_dark(near, other) && !modules.is_dark(other, near));
            }
        }
        assert!((4..11).all(|x| modules.is_dark(x, 4) && modules.is_dark(4, x)));

        for scale in [1, 3, 8] {
            let (side, light) = pixels(&png(URI, scale).expect("a file"));
            let scale = usize::from(scale);
            assert_eq!(side, SIDE * scale);
            for (i, light) in light.into_iter().enumerate() {
                assert_eq!(light, !modules.is_dark(i % side / scale, i / side / scale));
            }
        }

        let svg = svg(URI, "").expect("an image");
        let (_, runs) = svg.rsplit_once("d=\"M").expect("a path");
        let mut drawn = vec![false; SIDE * SIDE];
        for run in runs.trim_end_matches("z\"/></svg>").split("zM") {
            let (x, rest) = run.split_once(' ').expect("x");
            let (y, rest) = rest.split_once('h').expect("y");
            let (length, _) = rest.split_once('v').expect("a length");
            let [x, y, length] = [x, y, length].map(|n| n.parse::<usize>().expect("a number"));
            drawn[y * SIDE + x..][..length].fill(true);
        }
        assert_eq!(drawn, *modules.dark);

        let terminal = terminal(URI).expect("lines");
        assert_eq!(terminal.lines().count(), SIDE.div_ceil(2));
        for (row, line) in terminal.lines().enumerate() {
            let line = line.strip_prefix("\u{1b}[38;5;231;48;5;16m").expect("colours");
            let line = line.strip_suffix("\u{1b}[0m").expect("an end");
            assert_eq!(line.chars().count(), SIDE);
            for (x, character) in line.chars().enumerate() {
                assert_eq!(matches!(character, '█' | '▀'), !modules.is_dark(x, 2 * row));
                if 2 * row + 1 < SIDE {
                    assert_eq!(matches!(character, '█' | '▄'), !modules.is_dark(x, 2 * row + 1));
                }
            }
        }
    }

    #[test]
    fn the_same_text_gives_the_same_code() {
        assert_eq!(png(URI, 4), png(URI, 4));
        assert_eq!(svg(URI, "x"), svg(URI, "x"));
        assert_eq!(terminal(URI), terminal(URI));
        assert_ne!(png(URI, 4), png("other", 4));
    }

    #[test]
    fn an_svg_says_what_it_is_for_and_nothing_of_its_content() {
        let svg = svg(URI, r#"Código para "A&B" <1>"#).expect("an image");
        assert!(svg.starts_with(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 49 49" "#));
        assert!(
            svg.contains(r#"role="img" aria-label="Código para &quot;A&amp;B&quot; &lt;1&gt;">"#)
        );
        for outside in ["GEZD", "otpauth", "href", "url(", "<style", "<script", "style="] {
            assert!(!svg.contains(outside), "{outside}");
        }
        assert_eq!(svg.matches("http").count(), 1, "the name space alone");
    }

    #[test]
    fn what_is_too_long_or_too_large_is_refused() {
        for fits in ["x".repeat(2331), "ñ".repeat(1165)] {
            assert_eq!(Modules::of(&fits).expect("a code").side, 177 + 8);
        }
        for long in ["x".repeat(2332), "ñ".repeat(1166)] {
            assert_eq!(png(&long, 1), Err(NoQrCode::TooLong));
            assert_eq!(svg(&long, ""), Err(NoQrCode::TooLong));
            assert_eq!(terminal(&long), Err(NoQrCode::TooLong));
        }
        assert_eq!(png("x", 0), Err(NoQrCode::Scale));
        assert_eq!(png("x", 41), Err(NoQrCode::Scale));
        assert!(png("x", 40).is_ok());
    }

    #[test]
    fn no_buffer_that_is_returned_has_grown_on_the_way() {
        for text in ["", URI, &"x".repeat(2331)] {
            let side = Modules::of(text).expect("a code").side;
            let svg = svg(text, "").expect("an image");
            assert!(svg.capacity() <= 512 + 9 * side * side);
            let terminal = terminal(text).expect("lines");
            assert!(terminal.capacity() <= side.div_ceil(2) * (3 * side + 32));
        }
    }
}
