//! The newest rows of a file, read from its end: which bytes are needed next, and the rows that are
//! in them. There is no I/O here, and the file as a whole is never in memory.
//!
//! ```text
//! step  →  Fetch(900_000..965_536)     the end of the file, where its description is
//! give  ←  these bytes
//! step  →  Fetch(700_000..880_000)     the last row group
//! give  ←  these bytes
//! step  →  Done                        five rows were wanted, and it has them
//! ```

use crate::table::columnar::FileError;
use crate::table::listing::Value;
use crate::table::partial_file::{Part, PartialFile, guarded, needed_footer_bytes};
use bytes::Bytes;
use std::ops::Range;

/// How much of the end of a file is fetched first. The description of a file of a million rows is a
/// few KiB.
const END_BYTES: u64 = 65_536;
/// How many rows are decoded at a time: a value of a reject may be 64 KiB.
const ROWS_AT_A_TIME: usize = 128;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Fetch these bytes of the file, and hand them to [`NewestRows::give`].
    Fetch(Range<u64>),
    /// Nothing: there are as many rows as were wanted, or as the file has.
    Done,
}

/// Reads the newest rows of one file.
#[derive(Debug)]
pub struct NewestRows {
    size: u64,
    limit: usize,
    /// How much text the rows may still have.
    text_bytes_left: usize,
    wanted: Option<Range<u64>>,
    /// The end of the file, as far as it is known.
    end: Option<Part>,
    /// The row group that is read.
    group: Option<Part>,
    /// How many row groups are not read to their beginning yet; `None` before that is known.
    groups_left: Option<usize>,
    /// How many rows of the row group that is read are left, counted from its beginning.
    rows_left: Option<usize>,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl NewestRows {
    /// Reads at most `limit` rows of a file that has `size` bytes, and fewer where these have more
    /// than `text_bytes` of text; at least one.
    #[must_use]
    pub fn new(size: u64, limit: usize, text_bytes: usize) -> Self {
        Self {
            size,
            limit,
            text_bytes_left: text_bytes,
            wanted: None,
            end: None,
            group: None,
            groups_left: None,
            rows_left: None,
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Takes the bytes that [`NewestRows::step`] asked for.
    ///
    /// # Errors
    /// There are fewer or more bytes than were asked for.
    pub fn give(&mut self, bytes: Bytes) -> Result<(), FileError> {
        let Some(range) = self.wanted.take() else {
            return Ok(());
        };
        let part = Part::of(&range, bytes)?;
        match self.groups_left {
            None => self.end = Some(part),
            Some(_) => self.group = Some(part),
        }
        Ok(())
    }

    /// Reads what can be read of the bytes that are there.
    ///
    /// # Errors
    /// The file is damaged, or was not written by windrow.
    pub fn step(&mut self) -> Result<NextStep, FileError> {
        guarded(|| self.step_unguarded())
    }

    fn step_unguarded(&mut self) -> Result<NextStep, FileError> {
        let Some(end) = &self.end else {
            return Ok(self.fetch(self.size.saturating_sub(END_BYTES)..self.size));
        };
        if let Some(needed) = needed_footer_bytes(&end.bytes, self.size)? {
            return Ok(self.fetch(self.size - needed..self.size));
        }
        loop {
            let parts = [self.end.clone(), self.group.clone()];
            let parts = parts.into_iter().flatten().collect();
            let file = PartialFile::open(self.size, parts)?;
            if self.groups_left.is_none() {
                self.columns = file.column_names();
            }
            let left = *self.groups_left.get_or_insert(file.groups());
            if left == 0 || self.is_full() {
                return Ok(NextStep::Done);
            }
            if self.group.is_none() {
                return Ok(self.fetch(file.bytes_of_group(left - 1)?));
            }
            self.read_group(&file, left - 1)?;
        }
    }

    /// The columns, and the rows from the newest to the oldest.
    #[must_use]
    pub fn finish(self) -> (Vec<String>, Vec<Vec<Value>>) {
        (self.columns, self.rows)
    }

    fn fetch(&mut self, range: Range<u64>) -> NextStep {
        self.wanted = Some(range.clone());
        NextStep::Fetch(range)
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit || self.text_bytes_left == 0
    }

    /// Reads rows from the end of the row group towards its beginning.
    fn read_group(&mut self, file: &PartialFile, group: usize) -> Result<(), FileError> {
        let mut left = match self.rows_left {
            Some(left) => left,
            None => file.rows_of_group(group)?,
        };
        while left > 0 && !self.is_full() {
            let take = ROWS_AT_A_TIME.min(left).min(self.limit - self.rows.len());
            left -= take;
            for row in file.rows(group, left, take)?.into_iter().rev() {
                if self.is_full() {
                    break;
                }
                let text: usize = row.iter().map(Value::text_bytes).sum();
                self.text_bytes_left = self.text_bytes_left.saturating_sub(text);
                self.rows.push(row);
            }
        }
        self.rows_left = Some(left);
        if left == 0 {
            (self.group, self.rows_left) = (None, None);
            self.groups_left = Some(group);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::file::{Timestamps, read_rows, write_rows};
    use crate::values::record::Key;
    use crate::values::row::Row;
    use crate::values::shape::Shape;
    use crate::values::time::EventTime;
    use std::sync::Arc;

    fn file(rows: i64) -> Bytes {
        let shape = Shape::count_by_origin("clicks", 10_000, 10_000);
        let rows: Vec<Row> = (0..rows)
            .map(|i| Row {
                start: EventTime(i * 10_000),
                end: EventTime(i * 10_000 + 10_000),
                key: Arc::from(&*Key::of(&[Some(&format!("producer-{}", i * 7919))]).0),
                count: u64::try_from(i).unwrap() + 1,
                accs: [].into(),
            })
            .collect();
        Bytes::from(write_rows(&shape, Timestamps::Micros, &rows, &[]))
    }

    /// The newest rows, and how many bytes were fetched for them.
    fn newest(
        file: &Bytes,
        limit: usize,
        text_bytes: usize,
    ) -> Result<(Vec<Vec<Value>>, u64), FileError> {
        let mut newest = NewestRows::new(file.len() as u64, limit, text_bytes);
        let mut fetched = 0;
        loop {
            let NextStep::Fetch(range) = newest.step()? else {
                return Ok((newest.finish().1, fetched));
            };
            fetched += range.end - range.start;
            let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).unwrap());
            newest.give(file.slice(start..end))?;
        }
    }

    #[test]
    fn five_rows_of_a_big_file_read_only_what_they_need() {
        let file = file(400_000);
        let all = read_rows(&file, usize::MAX).unwrap().rows;
        let (rows, fetched) = newest(&file, 5, usize::MAX).unwrap();
        assert!(rows.iter().eq(all.iter().rev().take(5)));
        // The end of the file, and the last of its seven row groups, which has 6 784 rows.
        let most = END_BYTES + file.len() as u64 / 40;
        assert!(fetched <= most, "{fetched} of {} bytes", file.len());
    }

    #[test]
    fn the_newest_rows_are_those_at_the_end() {
        for count in [0, 1, 127, 65_536, 65_537, 140_000] {
            let file = file(count);
            let all = read_rows(&file, usize::MAX).unwrap().rows;
            for limit in [1, 128, 1000, 70_000] {
                let (rows, _) = newest(&file, limit, usize::MAX).unwrap();
                assert_eq!(rows.len(), limit.min(all.len()), "{count} {limit}");
                assert!(rows.iter().eq(all.iter().rev().take(limit)));
            }
        }
        let (rows, _) = newest(&file(1000), 1000, 30).unwrap();
        assert!((1..5).contains(&rows.len()), "{}", rows.len());
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = file(70_000);
        let mut short = good.to_vec();
        short.truncate(good.len() - 100);
        let mut huge = good.to_vec();
        let at = huge.len() - 8;
        huge[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        for bad in [Vec::new(), b"PAR1".to_vec(), short, huge, vec![0; 200_000]] {
            let error = newest(&Bytes::from(bad), 5, usize::MAX).unwrap_err();
            assert!(error.to_string().starts_with("cannot read Parquet file: "));
        }
        let small = file(3);
        for at in 0..small.len() {
            let mut damaged = small.to_vec();
            damaged[at] ^= 0xff;
            let _ = newest(&Bytes::from(damaged), 5, usize::MAX);
        }
        let mut wanted = NewestRows::new(100, 5, 10);
        wanted.step().unwrap();
        assert!(wanted.give(Bytes::from_static(b"short")).is_err());
    }
}
