//! Rows become the bytes of new files, piece by piece. Row groups and files are cut by row count
//! only, so their bytes do not depend on how many rows arrive at a time.

use super::order::Sums;
use super::{Limits, Merged, footer};
use crate::table::columnar::FileWriter;
use crate::table::columns::{Cells, Field, Timestamps};
use crate::values::digest::hex;
use crate::values::time::EventTime;
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The next bytes of a new file; see [`MergeStep::Store`](super::MergeStep::Store).
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) file: usize,
    pub(super) bytes: Bytes,
    pub(super) last: bool,
}

/// The new files.
pub(super) struct Output {
    timestamps: Timestamps,
    fields: Vec<Field>,
    limits: Limits,
    /// The rows of the next row group, as far as they are known.
    group: Vec<Cells>,
    /// The file that is being made; `None` before its first row group is full.
    file: Option<OpenFile>,
    /// What was written.
    pub(super) sums: Sums,
    /// The files that have their footers.
    pub(super) files: Vec<Merged>,
}

/// A file that is being made.
struct OpenFile {
    writer: FileWriter,
    rows: usize,
    /// The least `window.start` and the greatest.
    windows: (EventTime, EventTime),
    handed_out: HandedOut,
}

/// The bytes of a file that left this place.
#[derive(Default)]
struct HandedOut {
    count: u64,
    hash: Sha256,
}

impl Output {
    pub(super) fn new(timestamps: Timestamps, fields: Vec<Field>, limits: Limits) -> Self {
        Self {
            timestamps,
            limits,
            group: no_rows(&fields),
            fields,
            file: None,
            sums: Sums::default(),
            files: Vec::new(),
        }
    }

    /// The columns of the files.
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Takes as many of the rows as the next row group has room for, and returns the piece that
    /// must be stored before more are added.
    pub(super) fn add(&mut self, rows: &mut [Cells]) -> Option<Piece> {
        let room = self.room();
        for (group, rows) in self.group.iter_mut().zip(rows) {
            let rest = rows.split_off(room.min(rows.len()));
            group.append(std::mem::replace(rows, rest));
        }
        if self.room() > 0 {
            return None;
        }
        self.write_group();
        let file = self.file.as_mut().expect("a row group was written");
        if file.rows == self.limits.file_rows {
            return Some(self.end_file());
        }
        let is_piece = file.writer.waiting_bytes() >= self.limits.piece_bytes;
        is_piece.then(|| {
            let bytes = file.writer.take_bytes();
            file.handed_out.add(&bytes);
            Piece {
                file: self.files.len(),
                bytes: bytes.into(),
                last: false,
            }
        })
    }

    /// Ends the last file, if it has rows.
    pub(super) fn end(&mut self) -> Option<Piece> {
        if self.group_rows() > 0 {
            self.write_group();
        }
        self.file.is_some().then(|| self.end_file())
    }

    fn group_rows(&self) -> usize {
        self.group[0].len()
    }

    /// How many rows the next row group still takes.
    fn room(&self) -> usize {
        let file_rows = self.file.as_ref().map_or(0, |file| file.rows);
        let group_rows = self.limits.group_rows;
        group_rows.min(self.limits.file_rows - file_rows) - self.group_rows()
    }

    fn write_group(&mut self) {
        let group = std::mem::replace(&mut self.group, no_rows(&self.fields));
        let Cells::Window(windows) = &group[0] else {
            unreachable!("the first column of the table is the window");
        };
        let start = |row: usize| windows[row].expect("windows were checked").0;
        let (first, last) = (start(0), start(windows.len() - 1));
        let file = self.file.get_or_insert_with(|| OpenFile {
            writer: FileWriter::new(self.timestamps, self.fields.clone()),
            rows: 0,
            windows: (first, last),
            handed_out: HandedOut::default(),
        });
        file.windows.1 = last;
        file.rows += windows.len();
        file.writer.write_group(&group);
        self.sums.add(&group);
    }

    fn end_file(&mut self) -> Piece {
        let OpenFile {
            writer,
            rows,
            windows: (first_window, last_window),
            mut handed_out,
        } = self.file.take().expect("a file is being made");
        let bytes = writer.finish(&footer());
        handed_out.add(&bytes);
        let piece = Piece {
            file: self.files.len(),
            bytes: bytes.into(),
            last: true,
        };
        self.files.push(Merged {
            rows: rows as u64,
            bytes: handed_out.count,
            sha256: hex(&handed_out.hash.finalize()),
            first_window,
            last_window,
        });
        piece
    }
}

impl HandedOut {
    fn add(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.hash.update(bytes);
    }
}

/// No rows of these columns.
fn no_rows(fields: &[Field]) -> Vec<Cells> {
    fields.iter().map(|field| Cells::none(field.kind)).collect()
}
