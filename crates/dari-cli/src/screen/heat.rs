//! Heat maps of similarities: in a terminal's colours, and as a picture.

use dari::{Limits, Picture};

use super::canvas::Canvas;
use super::{fit, is_coloured, print};

/// A colour between dark blue and yellow (after viridis: even in lightness, safe for the colour
/// blind), for a share in 0..=1.
pub fn colour(share: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let place = share * (STOPS.len() - 1) as f32;
    let low = (place as usize).min(STOPS.len() - 2);
    let part = place - low as f32;
    [0, 1, 2].map(|c| (STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * part).round() as u8)
}

/// Where a value lies between the least and the most of a matrix.
pub fn shares(matrix: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let values = || matrix.iter().flatten().copied().filter(|v| v.is_finite());
    let (low, high) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
    let span = (high - low).max(1e-6);
    matrix.iter().map(|row| row.iter().map(|v| (v - low) / span).collect()).collect()
}

/// Prints a matrix, a row a picture, coloured where stdout is a terminal.
pub fn show(matrix: &[Vec<f32>], rows: &[String], columns: &[String]) -> std::io::Result<()> {
    let coloured = is_coloured();
    let wide = rows.iter().map(|row| super::columns(row)).max().unwrap_or(0).clamp(8, 32);
    for (number, text) in columns.iter().enumerate() {
        print(&format!("{} {:>3}  {text}", " ".repeat(wide), number + 1))?;
    }
    let heads: String = (1..=columns.len()).map(|number| format!("{number:>7}")).collect();
    print(&format!("{} {heads}", " ".repeat(wide)))?;
    let shares = shares(matrix);
    for ((row, share), name) in matrix.iter().zip(&shares).zip(rows) {
        let cells: String = row
            .iter()
            .zip(share)
            .map(|(value, &share)| match coloured {
                true => {
                    let [r, g, b] = colour(share);
                    let ink = if share > 0.55 { 30 } else { 97 };
                    format!("\x1b[48;2;{r};{g};{b}m\x1b[{ink}m{value:>7.3}\x1b[0m")
                }
                false => format!("{value:>7.3}"),
            })
            .collect();
        print(&format!("{} {cells}", fit(name, wide)))?;
    }
    Ok(())
}

/// A picture with a map of values laid over it, the least dark blue, the most yellow.
pub fn over(picture: &Picture, map: &[Vec<f32>]) -> anyhow::Result<Picture> {
    /// How much of the picture shines through.
    const SHINE: f32 = 0.45;
    let shares = shares(map);
    let (down, across) = (shares.len(), shares.first().map_or(0, Vec::len));
    if down == 0 || across == 0 {
        return Ok(picture.clone());
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    // Between the middles of the places, along each axis.
    let along = |at: usize, length: usize, places: usize| {
        let place = (at as f32 + 0.5) / length as f32 * places as f32 - 0.5;
        let place = place.clamp(0.0, (places - 1) as f32);
        let low = (place as usize).min(places.saturating_sub(2));
        (low, (low + 1).min(places - 1), place - low as f32)
    };
    let mut rgb = Vec::with_capacity(width * height * 3);
    for (y, line) in picture.rgb().chunks_exact(width * 3).enumerate() {
        let (top, bottom, v) = along(y, height, down);
        for (x, pixel) in line.chunks_exact(3).enumerate() {
            let (left, right, u) = along(x, width, across);
            let mix = |row: &[f32]| row[left] * (1.0 - u) + row[right] * u;
            let heat = colour(mix(&shares[top]) * (1.0 - v) + mix(&shares[bottom]) * v);
            let blend = |(below, above): (&u8, u8)| {
                (f32::from(*below) * SHINE + f32::from(above) * (1.0 - SHINE)).round() as u8
            };
            rgb.extend(pixel.iter().zip(heat).map(blend));
        }
    }
    Ok(Picture::from_rgb(width as u32, height as u32, rgb)?)
}

/// Pictures of one size in rows, on white.
pub fn sheet(rows: &[Vec<Picture>]) -> anyhow::Result<Picture> {
    let one = rows.first().and_then(|row| row.first());
    let (wide, high) = one.map_or((1, 1), |one| (one.width() as usize, one.height() as usize));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = 2 * MARGIN + columns * (wide + MARGIN);
    let height = 2 * MARGIN + rows.len() * (high + MARGIN);
    let mut canvas = Canvas::white(width, height);
    for (row, pictures) in rows.iter().enumerate() {
        for (column, picture) in pictures.iter().enumerate() {
            let (x, y) = (MARGIN + column * (wide + MARGIN), MARGIN + row * (high + MARGIN));
            canvas.put(picture, x, y, wide, high);
        }
    }
    canvas.finish()
}

/// Side of a cell and of a thumbnail, in pixels.
const CELL: usize = 64;
const GAP: usize = 2;
const MARGIN: usize = 8;
/// Height of the line of column numbers.
const HEAD: usize = 24;

/// Draws a matrix: thumbnails of the pictures at the left, the texts' numbers above, and in each
/// cell its value. `thumbnails` has one a row, where it could be made.
pub fn draw(matrix: &[Vec<f32>], thumbnails: &[Option<Picture>]) -> anyhow::Result<Picture> {
    let columns = matrix.first().map_or(0, Vec::len);
    let width = 2 * MARGIN + (columns + 1) * (CELL + GAP);
    let height = 2 * MARGIN + HEAD + matrix.len() * (CELL + GAP);
    // The bound for pictures that are read serves for those drawn.
    let bound = Limits::default();
    let (wide, high) = (width as u64 > bound.max_width.into(), height as u64 > bound.max_height.into());
    if wide || high || width as u64 * height as u64 > bound.max_pixels {
        anyhow::bail!(
            "a heat map of {} x {columns} would be {width} x {height} pixels: ask for fewer",
            matrix.len()
        );
    }
    let mut canvas = Canvas::white(width, height);
    for column in 0..columns {
        let x = MARGIN + (column + 1) * (CELL + GAP);
        canvas.write(&(column + 1).to_string(), x + CELL / 2, MARGIN + HEAD / 2, [40; 3]);
    }
    for (row, (values, shares)) in matrix.iter().zip(shares(matrix)).enumerate() {
        let y = MARGIN + HEAD + row * (CELL + GAP);
        if let Some(Some(picture)) = thumbnails.get(row) {
            // In the middle of its cell.
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            let spare = |length: usize| CELL.saturating_sub(length) / 2;
            canvas.put(picture, MARGIN + spare(width), y + spare(height), CELL, CELL);
        }
        for (column, (value, share)) in values.iter().zip(shares).enumerate() {
            let x = MARGIN + (column + 1) * (CELL + GAP);
            canvas.fill(x, y, CELL, CELL, colour(share));
            let ink = if share > 0.55 { [0; 3] } else { [255; 3] };
            canvas.write(&format!("{value:.2}"), x + CELL / 2, y + CELL / 2, ink);
        }
    }
    canvas.finish()
}

/// A picture to fit a cell, for [`draw`].
pub fn thumbnail(picture: &Picture, side: u32) -> Option<Picture> {
    let (width, height) = (picture.width() as u64, picture.height() as u64);
    let longest = width.max(height).max(1);
    let scaled = |length: u64| ((length * u64::from(side) / longest) as u32).max(1);
    let filter = dari::data::image::Filter::Bicubic;
    dari::data::image::resize::resize(picture, scaled(width), scaled(height), filter).ok()
}

/// The side of a cell's thumbnail.
pub const THUMBNAIL: u32 = CELL as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cells_in_the_colours_of_their_values() {
        let picture = draw(&[vec![0.0, 1.0], vec![0.5, f32::NAN]], &[None, None]).expect("a picture");
        assert_eq!(picture.width() as usize, 2 * MARGIN + 3 * (CELL + GAP));
        let at = |x: usize, y: usize| picture.rgb()[(y * picture.width() as usize + x) * 3..][..3].to_vec();
        let x = MARGIN + CELL + GAP;
        assert_eq!(at(x, MARGIN + HEAD), colour(0.0));
        assert_eq!(at(x + CELL + GAP, MARGIN + HEAD), colour(1.0));
    }
}
