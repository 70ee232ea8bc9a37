//! Points, shapes, and the cells that cover them.

use proptest::prelude::*;
use serde_json::json;

use super::{json as read, matches, parse};
use crate::filter::Filter;
use crate::filter::geo::{Point, Shape, cell, cover};
use crate::value::{Json, Row};

const BERLIN: Point = Point { lat: 52.52, lng: 13.405 };
const PARIS: Point = Point { lat: 48.8566, lng: 2.3522 };

#[test]
fn distances_are_those_of_the_sphere() {
    assert!((BERLIN.distance_m(PARIS) - 877_460.0).abs() < 2_000.0, "{}", BERLIN.distance_m(PARIS));
    let pole = |lng| Point { lat: 90.0, lng };
    assert!(pole(0.0).distance_m(pole(120.0)) < 0.01);
    let half = Point { lat: 0.0, lng: 0.0 }.distance_m(Point { lat: 0.0, lng: 180.0 });
    assert!((half - std::f64::consts::PI * 6_371_008.8).abs() < 1.0);
    let date_line = Point { lat: 0.0, lng: 179.9 }.distance_m(Point { lat: 0.0, lng: -179.9 });
    assert!((date_line - 22_239.0).abs() < 10.0, "{date_line}");
}

#[test]
fn points_are_found_near_and_within() {
    for (filter, document, expected) in [
        (
            r#"{"at":{"$near":{"lat":52.5,"lng":13.4,"max_distance_m":5000}}}"#,
            r#"{"at":{"lat":52.52,"lng":13.405}}"#,
            true,
        ),
        (
            r#"{"at":{"$near":{"lat":52.5,"lng":13.4,"max_distance_m":500}}}"#,
            r#"{"at":{"lat":52.52,"lng":13.405}}"#,
            false,
        ),
        (
            r#"{"at":{"$near":{"lat":52.5,"lng":13.4,"min_distance_m":5000}}}"#,
            r#"{"at":{"lat":52.52,"lng":13.405}}"#,
            false,
        ),
        (r#"{"at":{"$near":{"lat":0,"lon":0}}}"#, r#"{"at":{"lat":52.52,"lon":13.405}}"#, true),
        (r#"{"at":{"$near":{"lat":0,"lng":0}}}"#, r#"{"at":{"lat":"52"}}"#, false),
        (r#"{"at":{"$near":{"lat":0,"lng":0}}}"#, r#"{"at":{"lat":91,"lng":0}}"#, false),
        (r#"{"at":{"$near":{"lat":0,"lng":0}}}"#, "{}", false),
        (
            r#"{"at":{"$within":{"circle":{"lat":0,"lng":179.9,"radius_m":50000}}}}"#,
            r#"{"at":{"lat":0,"lng":-179.9}}"#,
            true,
        ),
        (
            r#"{"at":{"$within":{"box":{"south":-10,"west":170,"north":10,"east":-170}}}}"#,
            r#"{"at":{"lat":0,"lng":175}}"#,
            true,
        ),
        (
            r#"{"at":{"$within":{"box":{"south":-10,"west":170,"north":10,"east":-170}}}}"#,
            r#"{"at":{"lat":0,"lng":0}}"#,
            false,
        ),
        (
            r#"{"at":{"$within":{"box":{"south":-10,"west":-5,"north":10,"east":5}}}}"#,
            r#"{"at":[{"lat":50,"lng":0},{"lat":10,"lng":5}]}"#,
            true,
        ),
        (r#"{"at":{"$within":{"polygon":[[0,0],[0,10],[10,0]]}}}"#, r#"{"at":{"lat":2,"lng":2}}"#, true),
        (r#"{"at":{"$within":{"polygon":[[0,0],[0,10],[10,0],[0,0]]}}}"#, r#"{"at":{"lat":8,"lng":8}}"#, false),
        (r#"{"at":{"$not":{"$within":{"polygon":[[0,0],[0,10],[10,0]]}}}}"#, "{}", true),
    ] {
        let parsed = parse(filter);
        assert_eq!(matches(&parsed, &read(document)), expected, "{filter} on {document}");
        assert_eq!(Filter::parse(&parsed.to_json()).unwrap(), parsed);
    }
}

#[test]
fn the_nearest_of_several_points_counts() {
    let filter = parse(r#"{"at":{"$near":{"lat":0,"lng":0,"min_distance_m":1}},"a":1}"#);
    let (path, near) = filter.near().unwrap();
    let body = br#"{"at":[{"lat":2,"lng":0},{"lat":0,"lng":1},{"lat":0,"lng":0}]}"#;
    let distance = near.distance_m(path, Row { id: None, body: Json::new(body), conflicts: 0 }).unwrap();
    assert!((distance - 111_195.0).abs() < 10.0, "{distance}");
    assert!(near.distance_m(path, Row { id: None, body: Json::new(b"{}"), conflicts: 0 }).is_none());
}

#[test]
fn a_cover_is_tight_and_codes_are_those_of_morton() {
    let code = |lat, lng| cell(Point { lat, lng });
    assert_eq!(code(-90.0, -180.0), 0);
    assert_eq!(code(90.0, 180.0), (1 << 52) - 1);
    assert_eq!((code(0.0, -180.0), code(-90.0, 0.0)), (1 << 50, 2 << 50));
    let size = |shape: &Shape, ranges| {
        cover(shape, ranges).iter().map(|range| (range.end() - range.start() + 1) as f64).sum::<f64>()
            / (1u64 << 52) as f64
    };
    let town = Shape::Circle { center: BERLIN, radius_m: 10_000.0 };
    // A thousand such circles would be more than the land; their cells are a hundred-thousandth of the map at most.
    assert!(size(&town, 16) < 1e-5, "{}", size(&town, 16));
    assert!(size(&town, 64) < size(&town, 4));
    assert_eq!(cover(&Shape::Box { south: -90.0, west: -180.0, north: 90.0, east: 180.0 }, 10), [0..=(1 << 52) - 1]);
}

fn point() -> impl Strategy<Value = Point> {
    let lat = prop_oneof![4 => -90.0f64..=90.0, 1 => Just(90.0), 1 => Just(-90.0), 1 => Just(0.0)];
    let lng = prop_oneof![4 => -180.0f64..=180.0, 1 => Just(180.0), 1 => Just(-180.0), 1 => Just(0.0)];
    (lat, lng).prop_map(|(lat, lng)| Point { lat, lng })
}

fn shape() -> impl Strategy<Value = Shape> {
    let radius = prop_oneof![0.0f64..100.0, 0.0f64..100_000.0, 0.0f64..21_000_000.0];
    prop_oneof![
        (point(), radius).prop_map(|(center, radius_m)| Shape::Circle { center, radius_m }),
        (point(), point()).prop_map(|(a, b)| Shape::Box {
            south: a.lat.min(b.lat),
            west: a.lng,
            north: a.lat.max(b.lat),
            east: b.lng,
        }),
        proptest::collection::vec(point(), 3..7).prop_map(Shape::Polygon),
        (point(), proptest::collection::vec((-0.01f64..0.01, -0.01f64..0.01), 3..7)).prop_map(|(center, corners)| {
            let corner = |(lat, lng): (f64, f64)| Point {
                lat: (center.lat + lat).clamp(-90.0, 90.0),
                lng: (center.lng + lng).clamp(-180.0, 180.0),
            };
            Shape::Polygon(corners.into_iter().map(corner).collect())
        }),
    ]
}

/// A point near a shape, and often on its edge.
fn close(shape: &Shape, turn: f64, far: f64) -> Option<Point> {
    let (from, to) = match shape {
        Shape::Circle { center, radius_m } => {
            let degrees = (radius_m / 6_371_008.8).to_degrees() * far;
            let (lat, lng) = (turn * std::f64::consts::TAU).sin_cos();
            return Point::new(center.lat + lat * degrees, center.lng + lng * degrees / center.lat.to_radians().cos());
        }
        Shape::Box { south, west, north, east } => {
            (Point { lat: *south, lng: *west }, Point { lat: *north, lng: *east })
        }
        Shape::Polygon(points) => (points[0], points[points.len() / 2]),
    };
    let far = far.min(1.0);
    Point::new(from.lat + (to.lat - from.lat) * turn, from.lng + (to.lng - from.lng) * far)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_point_in_a_shape_is_covered(
        shape in shape(),
        ranges_max in 1usize..40,
        points in proptest::collection::vec(point(), 20),
        turns in proptest::collection::vec((0.0f64..=1.0, prop_oneof![0.0f64..=1.2, Just(0.0), Just(0.999_999_9), Just(1.0)]), 40),
    ) {
        let ranges = cover(&shape, ranges_max);
        prop_assert!(ranges.len() <= ranges_max);
        prop_assert!(ranges.iter().all(|range| range.start() <= range.end()));
        prop_assert!(ranges.windows(2).all(|pair| *pair[0].end() + 1 < *pair[1].start()));
        let near = turns.iter().filter_map(|(turn, far)| close(&shape, *turn, *far));
        for point in points.into_iter().chain(near).filter(|point| shape.contains(*point)) {
            let code = cell(point);
            prop_assert!(ranges.iter().any(|range| range.contains(&code)), "{point:?}");
        }
    }

    #[test]
    fn a_circle_is_what_is_no_further(a in point(), b in point()) {
        let distance = a.distance_m(b);
        prop_assert!((distance - b.distance_m(a)).abs() < 0.001);
        let circle = Shape::Circle { center: a, radius_m: distance };
        prop_assert!(circle.contains(b));
        let filter = Filter::parse(&json!({"p": {"$within": {"circle": {"lat": a.lat, "lng": a.lng, "radius_m": distance * 0.99 - 0.1}}}}));
        if let Ok(filter) = filter {
            let found = matches(&filter, &json!({"p": {"lat": b.lat, "lng": b.lng}}));
            prop_assert!(!found);
        }
    }
}
