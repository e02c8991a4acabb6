//! Size and slide → the windows of a time, half-open `[start, end)`, aligned to the epoch in UTC as Spark's.
//! A *slice* is the piece that windows share: all times in it fall in the same windows.

use crate::values::shape::Shape;

/// Where windows lie. All values are milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    pub size: i64,
    pub slide: i64,
    pub offset: i64,
}

/// A slice and the windows its times fall in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: i64,
    pub end: i64,
    /// End of the earliest window; the others end `slide` apart.
    pub first_end: i64,
    /// End of the latest window.
    pub last_end: i64,
}

impl Windows {
    #[must_use]
    pub fn of_shape(shape: &Shape) -> Self {
        Self {
            size: shape.window_ms,
            slide: shape.slide_ms,
            offset: shape.offset_ms,
        }
    }

    /// The slice of a time, with its windows. The time must be in the years 1 to 9999, so nothing overflows.
    #[must_use]
    pub fn span(&self, time: i64) -> Span {
        let last_start = (time - self.offset).div_euclid(self.slide) * self.slide + self.offset;
        let within = time - last_start;
        // When the slide does not divide the size, windows also end inside a slide: at this distance.
        let remainder = self.size % self.slide;
        let (start, end) = if remainder == 0 {
            (last_start, last_start + self.slide)
        } else if within < remainder {
            (last_start, last_start + remainder)
        } else {
            (last_start + remainder, last_start + self.slide)
        };
        let whole = self.size / self.slide;
        // The earliest window that still contains the slice.
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
    /// Windows that hold this slice.
    #[must_use]
    pub fn windows(&self, slide: i64) -> u64 {
        ((self.last_end - self.first_end) / slide + 1) as u64
    }

    /// Of these, the ones closed at `watermark`: those with `end <= watermark`.
    #[must_use]
    pub fn closed(&self, slide: i64, watermark: i64) -> u64 {
        if watermark < self.first_end {
            0
        } else {
            ((watermark.min(self.last_end) - self.first_end) / slide + 1) as u64
        }
    }

    /// End of the earliest window still open at `watermark`; `None` when all are closed.
    #[must_use]
    pub fn next_end(&self, slide: i64, watermark: i64) -> Option<i64> {
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

    /// Spark's rule, one window at a time: all k with `k·slide + offset <= time < k·slide + offset + size`.
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
