//! Places on the Earth: points, distances, shapes, and how an index covers them.
//!
//! A point is an object with `lat` and `lng` (or `lon`) in degrees (WGS 84), north and east positive. Distances are
//! along great circles on a sphere of the Earth's mean radius, which is off by at most 0.6 %. Boxes and polygons have
//! edges that are straight on a map whose axes are degrees; a box whose west is greater than its east crosses the
//! antimeridian, a polygon cannot.
//!
//! - this file: points, `$near`
//! - `shape` what `$within` takes
//! - `cell` Morton codes of points, and ranges of codes that cover a shape

mod cell;
mod shape;

pub use cell::{cell, cover};
pub use shape::Shape;

use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::fault::{fault, join, kind};
use crate::Result;
use crate::base::suggestion;
use crate::value::{Json, Kind, Leaf, Path, Row};

/// Metres from the middle of the Earth to its surface, on average (IUGG).
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;

/// A place in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// North of the equator, from -90 to 90.
    pub lat: f64,
    /// East of Greenwich, from -180 to 180.
    pub lng: f64,
}

impl Point {
    /// The point of these coordinates; `None` when they are out of range.
    #[must_use]
    pub fn new(lat: f64, lng: f64) -> Option<Self> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lng)).then_some(Self { lat, lng })
    }

    /// The point that an object in a document is; `None` for anything else.
    #[must_use]
    pub fn read(value: Json<'_>) -> Option<Self> {
        if value.kind() != Kind::Object {
            return None;
        }
        let lat = value.get("lat")?.as_f64()?;
        Self::new(lat, value.get("lng").or_else(|| value.get("lon"))?.as_f64()?)
    }

    /// Metres along the great circle to another point.
    #[must_use]
    pub fn distance_m(self, other: Self) -> f64 {
        let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
        let across = self.lat.to_radians().cos() * other.lat.to_radians().cos() * half(self.lng, other.lng);
        let haversine = half(self.lat, other.lat) + across;
        2.0 * EARTH_RADIUS_M * haversine.sqrt().min(1.0).asin()
    }
}

/// What `$near` asks for: points around one, which is also the order of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Near {
    /// The middle.
    pub point: Point,
    /// Metres from it at most.
    pub max_distance_m: Option<f64>,
    /// Metres from it at least.
    pub min_distance_m: f64,
}

impl Near {
    /// Reads `{"lat", "lng", "max_distance_m", "min_distance_m"}`.
    pub(super) fn parse(value: &Value, at: &str) -> Result<Self> {
        let fields = object(value, at, &["lat", "lng", "lon", "max_distance_m", "min_distance_m"])?;
        let distance = |name: &str| fields.contains_key(name).then(|| metres(fields, name, at)).transpose();
        let near = Self {
            point: point(fields, at)?,
            max_distance_m: distance("max_distance_m")?,
            min_distance_m: distance("min_distance_m")?.unwrap_or(0.0),
        };
        if near.max_distance_m.is_some_and(|max| max < near.min_distance_m) {
            return Err(fault(at, "max_distance_m is below min_distance_m, so nothing would match"));
        }
        Ok(near)
    }

    /// Whether a point is at such a distance.
    #[must_use]
    pub fn reaches(&self, point: Point) -> bool {
        let distance = self.point.distance_m(point);
        distance >= self.min_distance_m && self.max_distance_m.is_none_or(|max| distance <= max)
    }

    /// Metres to the nearest of a row's points under a path that are at such a distance; `None` when there is none.
    #[must_use]
    pub fn distance_m(&self, path: &Path, row: Row<'_>) -> Option<f64> {
        let mut least: Option<f64> = None;
        let _: ControlFlow<()> = path.visit_row(row, Leaf::Items, &mut |value| {
            if let Some(point) = value.and_then(Point::read).filter(|point| self.reaches(*point)) {
                let distance = self.point.distance_m(point);
                least = Some(least.map_or(distance, |least| least.min(distance)));
            }
            ControlFlow::Continue(())
        });
        least
    }

    /// The circle that holds all such points, when there is a greatest distance.
    #[must_use]
    pub fn circle(&self) -> Option<Shape> {
        self.max_distance_m.map(|radius_m| Shape::Circle { center: self.point, radius_m })
    }
}

/// An object with no other fields than these.
fn object<'a>(value: &'a Value, at: &str, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let list = known.join(", ");
    let Value::Object(fields) = value else {
        return Err(fault(at, format!("it takes an object with fields of {list}, not {}", kind(value))));
    };
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(fields),
        Some(other) => {
            let near = suggestion(other, known.iter().copied());
            Err(fault(&join(at, other), format!("there is no such field; {near}")))
        }
    }
}

fn point(fields: &Map<String, Value>, at: &str) -> Result<Point> {
    let lng = if fields.contains_key("lon") { "lon" } else { "lng" };
    degrees(fields.get("lat"), fields.get(lng), at)
}

fn degrees(lat: Option<&Value>, lng: Option<&Value>, at: &str) -> Result<Point> {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    let read = number(lat).zip(number(lng)).and_then(|(lat, lng)| Point::new(lat, lng));
    read.ok_or_else(|| fault(at, "a point needs lat from -90 to 90 and lng from -180 to 180, in degrees"))
}

fn metres(fields: &Map<String, Value>, name: &str, at: &str) -> Result<f64> {
    let number = fields.get(name).and_then(Value::as_f64).filter(|number| *number >= 0.0);
    number.ok_or_else(|| fault(&join(at, name), "metres are needed: a number from 0 on"))
}
