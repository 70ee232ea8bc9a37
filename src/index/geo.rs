//! Points as keys: the code of the cell that each is in, in 8 bytes, the most significant first.

use std::ops::ControlFlow;

use super::Span;
use crate::filter::geo::{Point, Shape, cell, cover};
use crate::limits::INDEX_GEO_SPANS_MAX;
use crate::value::{Leaf, Path, Row};

/// The keys of the points in a field, up to one more than `max`.
pub(super) fn geo_keys(path: &Path, row: Row<'_>, max: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let _: ControlFlow<()> = path.visit_row(row, Leaf::Items, &mut |value| {
        keys.extend(value.and_then(Point::read).map(|point| cell(point).to_be_bytes().to_vec()));
        if keys.len() > max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The keys of an index of points, from and up to, in which every point of a shape is, ascending and apart. Points in
/// them must still be asked whether they are in the shape.
#[must_use]
pub fn geo_spans(shape: &Shape) -> Vec<Span> {
    // Codes have 52 bits.
    let span = |codes: std::ops::RangeInclusive<u64>| {
        (codes.start().to_be_bytes().to_vec(), (codes.end() + 1).to_be_bytes().to_vec())
    };
    cover(shape, INDEX_GEO_SPANS_MAX).into_iter().map(span).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::Json;

    proptest! {
        #[test]
        fn the_keys_of_points_in_a_shape_are_in_its_spans(
            (lat, lng) in (-90.0..=90.0f64, -180.0..=180.0f64),
            (d_lat, d_lng) in (-2.0..2.0f64, -2.0..2.0f64),
            radius_m in 0.0..300_000.0f64,
        ) {
            let center = Point { lat, lng };
            let circle = Shape::Circle { center, radius_m };
            let Some(point) = Point::new(lat + d_lat, lng + d_lng) else { return Ok(()) };
            let text = format!(r#"{{"p":[{{"lat":{},"lng":{}}},3,null]}}"#, point.lat, point.lng);
            let row = Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 };
            let keys = geo_keys(&"p".parse().unwrap(), row, 5);
            prop_assert_eq!(keys.len(), 1);
            let spans = geo_spans(&circle);
            prop_assert!(spans.len() <= INDEX_GEO_SPANS_MAX && spans.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let found = spans.iter().any(|(from, to)| *from <= keys[0] && keys[0] < *to);
            prop_assert!(found || !circle.contains(point));
        }
    }
}
