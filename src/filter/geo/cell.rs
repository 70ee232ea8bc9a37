//! Cells of a grid, numbered so that what is near on the map is often near in number.
//!
//! Longitude and latitude are cut into 2^26 columns and rows each, about 0.6 m by 0.3 m at the equator. The code of a
//! cell interleaves the bits of both (Morton's Z-order), the longitude's first, so that a square of cells whose side is
//! a power of two, and which lies on a multiple of it, is one range of codes.
//!
//! A cover is a superset: what it finds must still be asked whether it is in the shape.

use std::ops::RangeInclusive;

use super::shape::edges;
use super::{Point, Shape};

/// Bits of a row or column.
const BITS: u32 = 26;

/// Cells looked at for each range that may be returned: more make the cover fit better.
const CELLS_PER_RANGE: usize = 4;

/// Metres by which distances computed in two ways may differ, many times over.
const SLACK_M: f64 = 1.0;

/// The code of the cell that a point is in, below 2^52.
#[must_use]
pub fn cell(point: Point) -> u64 {
    interleave(column(point.lng), row(point.lat))
}

/// Ranges of codes, ascending and apart, in which the code of every point in a shape is; at most `ranges_max`, or one.
#[must_use]
pub fn cover(shape: &Shape, ranges_max: usize) -> Vec<RangeInclusive<u64>> {
    let ranges_max = ranges_max.max(1);
    let mut squares = vec![Square { code: 0, level: 0, inside: false }];
    for level in 1..=BITS {
        let mut next = Vec::with_capacity(4 * squares.len());
        for square in &squares {
            if square.inside {
                next.push(*square);
                continue;
            }
            let quarters = (0..4).map(|quarter| Square { code: square.code << 2 | quarter, level, inside: false });
            next.extend(quarters.filter(|quarter| quarter.bounds().touches(shape)).map(|mut quarter| {
                quarter.inside = quarter.bounds().corners().iter().all(|corner| shape.contains(*corner));
                quarter
            }));
        }
        if next.len() > CELLS_PER_RANGE * ranges_max {
            break;
        }
        squares = next;
        if squares.iter().all(|square| square.inside) {
            break;
        }
    }
    join(squares.iter().map(Square::codes), ranges_max)
}

/// Joins ranges that touch, then those with the smallest gaps between them until they are few enough.
fn join(ranges: impl Iterator<Item = RangeInclusive<u64>>, ranges_max: usize) -> Vec<RangeInclusive<u64>> {
    let mut joined: Vec<RangeInclusive<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if *last.end() + 1 == *range.start() => *last = *last.start()..=*range.end(),
            _ => joined.push(range),
        }
    }
    let mut gaps: Vec<(u64, usize)> =
        joined.windows(2).enumerate().map(|(index, pair)| (pair[1].start() - pair[0].end(), index)).collect();
    gaps.sort_unstable();
    let excess = joined.len().saturating_sub(ranges_max);
    let mut closed: Vec<usize> = gaps[..excess].iter().map(|(_, index)| *index).collect();
    closed.sort_unstable();
    for index in closed.into_iter().rev() {
        let next = joined.remove(index + 1);
        joined[index] = *joined[index].start()..=*next.end();
    }
    joined
}

fn row(lat: f64) -> u32 {
    position((lat + 90.0) / 180.0)
}

fn column(lng: f64) -> u32 {
    position((lng + 180.0) / 360.0)
}

/// Rounds down, and into the grid; never decreases when the fraction grows.
fn position(fraction: f64) -> u32 {
    let cells = 1u32 << BITS;
    ((fraction * f64::from(cells)) as u32).min(cells - 1)
}

fn interleave(column: u32, row: u32) -> u64 {
    spread(column) << 1 | spread(row)
}

/// Puts a zero before each bit.
fn spread(bits: u32) -> u64 {
    let mut bits = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Takes every second bit.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

/// A square of cells: those whose codes start with `code`, of two bits for each level.
#[derive(Debug, Clone, Copy)]
struct Square {
    code: u64,
    level: u32,
    /// Whether splitting it would gain nothing, as far as its corners tell.
    inside: bool,
}

impl Square {
    fn codes(&self) -> RangeInclusive<u64> {
        let shift = 2 * (BITS - self.level);
        self.code << shift..=(self.code << shift | ((1 << shift) - 1))
    }

    /// Its degrees, and those of a cell more on each side, whatever was rounded.
    fn bounds(&self) -> Bounds {
        let side = f64::from(1u32 << (BITS - self.level));
        let step = 1.0 / f64::from(1u32 << BITS);
        let (column, row) = (f64::from(gather(self.code >> 1)) * side, f64::from(gather(self.code)) * side);
        Bounds {
            south: ((row - 1.0) * step * 180.0 - 90.0).max(-90.0),
            north: ((row + side + 1.0) * step * 180.0 - 90.0).min(90.0),
            west: ((column - 1.0) * step * 360.0 - 180.0).max(-180.0),
            east: ((column + side + 1.0) * step * 360.0 - 180.0).min(180.0),
        }
    }
}

/// Degrees from and to.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    south: f64,
    west: f64,
    north: f64,
    east: f64,
}

impl Bounds {
    fn corners(self) -> [Point; 4] {
        let corner = |lat, lng| Point { lat, lng };
        [
            corner(self.south, self.west),
            corner(self.south, self.east),
            corner(self.north, self.west),
            corner(self.north, self.east),
        ]
    }

    fn holds(self, point: Point) -> bool {
        (self.south..=self.north).contains(&point.lat) && (self.west..=self.east).contains(&point.lng)
    }

    /// Whether a point of a shape may be in here; certainly not when false.
    fn touches(self, shape: &Shape) -> bool {
        match shape {
            Shape::Circle { center, radius_m } => self.distance_m(*center) <= radius_m + SLACK_M,
            Shape::Box { south, west, north, east } => {
                let lng = match west <= east {
                    true => self.west <= *east && *west <= self.east,
                    false => self.west <= *east || *west <= self.east,
                };
                lng && self.south <= *north && *south <= self.north
            }
            Shape::Polygon(points) => edges(points).any(|(a, b)| self.meets(a, b)) || shape.contains(self.corners()[0]),
        }
    }

    /// Metres to the nearest point in here. For each latitude that is at the nearest longitude, and along a meridian
    /// the distance falls and rises once.
    fn distance_m(self, from: Point) -> f64 {
        let at = |lat: f64, lng: f64| from.distance_m(Point { lat: lat.clamp(self.south, self.north), lng });
        if (self.west..=self.east).contains(&from.lng) {
            return at(from.lat, from.lng);
        }
        let along = |lng: f64| {
            let (lat, apart) = (from.lat.to_radians(), (lng - from.lng).to_radians());
            let nearest = lat.sin().atan2(lat.cos() * apart.cos()).to_degrees();
            at(self.south, lng).min(at(self.north, lng)).min(at(nearest, lng))
        };
        along(self.west).min(along(self.east))
    }

    /// Whether an edge comes through here: what is left of it between south and north, west and east (Liang-Barsky).
    fn meets(self, a: Point, b: Point) -> bool {
        if self.holds(a) || self.holds(b) {
            return true;
        }
        let (d_lat, d_lng) = (b.lat - a.lat, b.lng - a.lng);
        let (mut from, mut to) = (0.0f64, 1.0f64);
        for (step, room) in [
            (-d_lat, a.lat - self.south),
            (d_lat, self.north - a.lat),
            (-d_lng, a.lng - self.west),
            (d_lng, self.east - a.lng),
        ] {
            if step == 0.0 {
                if room < 0.0 {
                    return false;
                }
            } else if step < 0.0 {
                from = from.max(room / step);
            } else {
                to = to.min(room / step);
            }
        }
        from <= to
    }
}
