//! Shapes that points are in.

use serde_json::Value;

use super::{Point, degrees, metres, object, point};
use crate::Result;
use crate::filter::fault::{fault, join, kind, too_large};
use crate::limits::POLYGON_POINTS_MAX;

/// What `$within` takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// All points up to a distance, which count as in it.
    Circle {
        /// The middle.
        center: Point,
        /// Metres.
        radius_m: f64,
    },
    /// Degrees from and to, which count as in it. A west greater than the east crosses the antimeridian.
    Box {
        /// The least latitude.
        south: f64,
        /// Where the longitudes begin.
        west: f64,
        /// The greatest latitude.
        north: f64,
        /// Where the longitudes end.
        east: f64,
    },
    /// The corners, of which the last is joined to the first. Where edges cross, what is enclosed twice is outside.
    /// Points exactly on an edge may count either way.
    Polygon(Vec<Point>),
}

impl Shape {
    /// Reads `{"circle": ..}`, `{"box": ..}` or `{"polygon": ..}`.
    pub(in crate::filter) fn parse(value: &Value, at: &str) -> Result<Self> {
        let fields = object(value, at, &["circle", "box", "polygon"])?;
        let mut shapes = fields.iter();
        let (Some((name, shape)), None) = (shapes.next(), shapes.next()) else {
            return Err(fault(at, "$within takes one of circle, box, polygon"));
        };
        let at = join(at, name);
        match name.as_str() {
            "circle" => {
                let fields = object(shape, &at, &["lat", "lng", "lon", "radius_m"])?;
                Ok(Self::Circle { center: point(fields, &at)?, radius_m: metres(fields, "radius_m", &at)? })
            }
            "box" => {
                let fields = object(shape, &at, &["south", "west", "north", "east"])?;
                let low = degrees(fields.get("south"), fields.get("west"), &at)?;
                let high = degrees(fields.get("north"), fields.get("east"), &at)?;
                if low.lat > high.lat {
                    return Err(fault(&at, "south is above north"));
                }
                Ok(Self::Box { south: low.lat, west: low.lng, north: high.lat, east: high.lng })
            }
            // The only other name that was let through.
            _ => polygon(shape, &at),
        }
    }

    /// Whether a point is in it.
    #[must_use]
    pub fn contains(&self, point: Point) -> bool {
        match self {
            Self::Circle { center, radius_m } => center.distance_m(point) <= *radius_m,
            Self::Box { south, west, north, east } => {
                let lng = match west <= east {
                    true => (*west..=*east).contains(&point.lng),
                    false => point.lng >= *west || point.lng <= *east,
                };
                lng && (*south..=*north).contains(&point.lat)
            }
            Self::Polygon(points) => {
                let crossings = edges(points).filter(|(a, b)| is_crossed(*a, *b, point)).count();
                crossings % 2 == 1
            }
        }
    }
}

/// The edges of a polygon.
pub(super) fn edges(points: &[Point]) -> impl Iterator<Item = (Point, Point)> {
    points.iter().copied().zip(points.iter().copied().cycle().skip(1))
}

/// Whether the ray from a point to the east crosses an edge.
fn is_crossed(a: Point, b: Point, point: Point) -> bool {
    (a.lat > point.lat) != (b.lat > point.lat)
        && point.lng < (b.lng - a.lng) * ((point.lat - a.lat) / (b.lat - a.lat)) + a.lng
}

fn polygon(value: &Value, at: &str) -> Result<Shape> {
    let Value::Array(corners) = value else {
        return Err(fault(at, format!("a polygon is a list of [lat, lng], not {}", kind(value))));
    };
    if corners.len() > POLYGON_POINTS_MAX {
        return Err(too_large(at, format!("a polygon has at most {POLYGON_POINTS_MAX} corners")));
    }
    let mut points = Vec::with_capacity(corners.len());
    for (index, corner) in corners.iter().enumerate() {
        let at = join(at, index);
        let Some([lat, lng]) = corner.as_array().map(Vec::as_slice) else {
            return Err(fault(&at, "a corner is [lat, lng]"));
        };
        points.push(degrees(Some(lat), Some(lng), &at)?);
    }
    // As GeoJSON closes its rings.
    if points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    if points.len() < 3 {
        return Err(fault(at, "a polygon has three corners or more"));
    }
    if edges(&points).any(|(a, b)| (a.lng - b.lng).abs() > 180.0) {
        let message =
            "an edge is longer than 180 degrees; split a polygon at the antimeridian, and ask for $or of both";
        return Err(fault(at, message));
    }
    Ok(Shape::Polygon(points))
}
