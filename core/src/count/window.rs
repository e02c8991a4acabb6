//! Which windows a time falls in, from the size and the slide of the windows.
//! What is counted in them is not known here.
//!
//! Windows are `[k·slide + offset, k·slide + offset + size)` for every integer `k`. They are
//! half-open and aligned to 1970-01-01 00:00 UTC, as Spark's are. Windows that overlap share pieces
//! of time, and such a piece is a *slice*: all times in one slice fall in the same windows. So a
//! record is counted once, in its slice, and not once for each of its windows.
//!
//! Example, with a size of 10s and a slide of 5s: 12:00:07 falls in [12:00:00, 12:00:10) and in
//! [12:00:05, 12:00:15). Its slice is [12:00:05, 12:00:10).
//!
//! When the slide does not divide the size, windows also end between two starts. With a size of 10s
//! and a slide of 3s, windows start at the seconds 0, 3, 6, 9, 12 and end at 10, 13, 16. So the
//! slices are [9, 10), [10, 12), [12, 13), [13, 15), and so on: in turn as long as the remainder of
//! `size / slide`, and as long as the rest of the slide.

use crate::values::shape::Shape;

/// Where the windows of a table lie. All values are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Length of a window; `slide <= size <= 1000 * slide`.
    pub size: i64,
    /// Distance between the starts of two windows; at least one.
    pub slide: i64,
    /// Windows start at multiples of `slide` plus this; `0 <= offset < slide`.
    pub offset: i64,
}

/// A slice, and the windows that its times fall in. All values are milliseconds since 1970 UTC.
///
/// Example, with a size of 10s and a slide of 5s: the slice [12:00:05, 12:00:10) has `first_end`
/// 12:00:10 and `last_end` 12:00:15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start of the slice, which belongs to it.
    pub start: i64,
    /// End of the slice, which does not belong to it.
    pub end: i64,
    /// End of the earliest window that holds the slice. The other windows end `slide` apart.
    pub first_end: i64,
    /// End of the latest window that holds the slice.
    pub last_end: i64,
}

impl Windows {
    /// The windows that the settings `window`, `slide` and `offset` describe.
    #[must_use]
    pub fn of_shape(shape: &Shape) -> Self {
        Self {
            size: shape.window_ms,
            slide: shape.slide_ms,
            offset: shape.offset_ms,
        }
    }

    /// The slice that a time falls in, with its windows. The time must lie in the years 2 to 9998,
    /// so that nothing overflows.
    #[must_use]
    pub fn span(&self, time: i64) -> Span {
        let last_start = (time - self.offset).div_euclid(self.slide) * self.slide + self.offset;
        let within = time - last_start;
        // When the slide does not divide the size, windows also end inside a slide, at this
        // distance from its start.
        let remainder = self.size % self.slide;
        let (start, end) = if remainder == 0 {
            (last_start, last_start + self.slide)
        } else if within < remainder {
            (last_start, last_start + remainder)
        } else {
            (last_start + remainder, last_start + self.slide)
        };
        let whole = self.size / self.slide;
        // Before that distance, one more window that began earlier still contains the slice.
        let count = if remainder != 0 && within < remainder {
            whole + 1
        } else {
            whole
        };
        let last_end = last_start + self.size;
        Span {
            start,
            end,
            first_end: last_end - (count - 1) * self.slide,
            last_end,
        }
    }
}

impl Span {
    /// How many windows hold this slice; at least one.
    #[must_use]
    pub(super) fn windows(&self, slide: i64) -> u64 {
        ((self.last_end - self.first_end) / slide + 1) as u64
    }

    /// How many of these windows are closed at `watermark`, which is those with `end <= watermark`.
    #[must_use]
    pub(super) fn closed(&self, slide: i64, watermark: i64) -> u64 {
        if watermark < self.first_end {
            0
        } else {
            ((watermark.min(self.last_end) - self.first_end) / slide + 1) as u64
        }
    }

    /// End of the earliest window that is still open at `watermark`; `None` when all are closed.
    #[must_use]
    pub(super) fn next_end(&self, slide: i64, watermark: i64) -> Option<i64> {
        if watermark < self.first_end {
            Some(self.first_end)
        } else if watermark < self.last_end {
            Some(self.first_end + ((watermark - self.first_end) / slide + 1) * slide)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of a time's windows by Spark's rule, one window at a time: all those `k` for which
    /// `k·slide + offset <= time < k·slide + offset + size`.
    fn ends(w: Windows, time: i64) -> Vec<i64> {
        let k = (time - w.offset).div_euclid(w.slide);
        (k - w.size / w.slide - 2..=k + 1)
            .map(|k| k * w.slide + w.offset)
            .filter(|start| *start <= time && time < start + w.size)
            .map(|start| start + w.size)
            .collect()
    }

    #[test]
    fn spans_agree_with_the_rule_for_each_time() {
        for (size, slide, offset) in [
            (10, 10, 0),
            (10, 5, 0),
            (10, 3, 0),
            (10, 4, 1),
            (7, 7, 6),
            (10, 1, 0),
            (10, 7, 2),
            (3, 2, 1),
        ] {
            let w = Windows {
                size,
                slide,
                offset,
            };
            for time in -40..40 {
                let span = w.span(time);
                let ends = ends(w, time);
                assert!(
                    span.start <= time && time < span.end,
                    "{w:?} {time} {span:?}"
                );
                assert_eq!(
                    (span.first_end, span.last_end),
                    (ends[0], *ends.last().unwrap()),
                    "{w:?} {time}"
                );
                assert_eq!(span.windows(slide), ends.len() as u64);
                for t in span.start..span.end {
                    assert_eq!(w.span(t), span);
                }
                assert_ne!(w.span(span.end), span);
                for watermark in -60..60 {
                    let open: Vec<_> = ends.iter().filter(|end| **end > watermark).collect();
                    assert_eq!(
                        span.closed(slide, watermark),
                        (ends.len() - open.len()) as u64
                    );
                    assert_eq!(
                        span.next_end(slide, watermark).as_ref(),
                        open.first().copied()
                    );
                }
            }
        }
    }
}
