//! What is checked of a Parquet file before the Parquet library reads it. The library believes the
//! sizes that a file states: one damaged byte can make it ask for more memory than there is, which
//! ends the process, or skip two thousand million values of nothing, one by one. So the
//! descriptions in a file, which are structs in Thrift's compact protocol, are walked here first.
//! They may have only the fields that windrow writes, and state no more than fits.
//!
//! ```text
//! 15 00       field 1, a number: 0, a data page
//! 15 c8 01    field 2, a number: 100 bytes when decompressed
//! 15 50       field 3, a number: 40 bytes
//! 2c          field 5, a struct: the header of a data page
//!   15 14     field 1 in it, a number: 10 values
//!   ...
//! ```

use crate::table::columnar::{FileError, ROW_GROUP_ROWS, damaged};

/// No page that windrow writes has more bytes. The writer ends a page at 1 MiB, or after the one
/// value that is larger than that.
const PAGE_BYTES_MAX: i64 = 256 << 20;

/// What stands in a field.
enum Shape {
    /// An integer of any width, an enum too.
    Number,
    Flag,
    Bytes,
    List(&'static Shape),
    /// The fields by their numbers, in rising order.
    Struct(&'static [(i64, &'static Shape)]),
}

use Shape::{Bytes, Flag, List, Number, Struct};

// The structs of parquet.thrift, with the fields that windrow's files may have.
const NOTHING: &Shape = &Struct(&[]);
const KEY_VALUE: &Shape = &Struct(&[(1, &Bytes), (2, &Bytes)]);
const TIMESTAMP: &Shape = &Struct(&[(1, &Flag), (2, TIME_UNIT)]);
const TIME_UNIT: &Shape = &Struct(&[(1, NOTHING), (2, NOTHING), (3, NOTHING)]);
const DECIMAL: &Shape = &Struct(&[(1, &Number), (2, &Number)]);
const LOGICAL_TYPE: &Shape = &Struct(&[(1, NOTHING), (5, DECIMAL), (8, TIMESTAMP)]);
const SCHEMA_ELEMENT: &Shape = &Struct(&[
    (1, &Number),
    (2, &Number),
    (3, &Number),
    (4, &Bytes),
    (5, &Number),
    (6, &Number),
    (7, &Number),
    (8, &Number),
    (9, &Number),
    (10, LOGICAL_TYPE),
]);
const STATISTICS: &Shape = &Struct(&[
    (1, &Bytes),
    (2, &Bytes),
    (3, &Number),
    (4, &Number),
    (5, &Bytes),
    (6, &Bytes),
    (7, &Flag),
    (8, &Flag),
    (9, &Number),
]);
const ENCODING_STATS: &Shape = &Struct(&[(1, &Number), (2, &Number), (3, &Number)]);
const SIZE_STATISTICS: &Shape = &Struct(&[(1, &Number), (2, &List(&Number)), (3, &List(&Number))]);
const COLUMN_META_DATA: &Shape = &Struct(&[
    (1, &Number),
    (2, &List(&Number)),
    (3, &List(&Bytes)),
    (4, &Number),
    (5, &Number),
    (6, &Number),
    (7, &Number),
    (9, &Number),
    (11, &Number),
    (12, STATISTICS),
    (13, &List(ENCODING_STATS)),
    (16, SIZE_STATISTICS),
]);
const COLUMN_CHUNK: &Shape = &Struct(&[(2, &Number), (3, COLUMN_META_DATA)]);
const ROW_GROUP: &Shape = &Struct(&[
    (1, &List(COLUMN_CHUNK)),
    (2, &Number),
    (3, &Number),
    (5, &Number),
    (6, &Number),
    (7, &Number),
]);
const COLUMN_ORDER: &Shape = &Struct(&[(1, NOTHING), (2, NOTHING), (3, NOTHING)]);
const FILE_META_DATA: &Shape = &Struct(&[
    (1, &Number),
    (2, &List(SCHEMA_ELEMENT)),
    (3, &Number),
    (4, &List(ROW_GROUP)),
    (5, &List(KEY_VALUE)),
    (6, &Bytes),
    (7, &List(COLUMN_ORDER)),
]);
const DATA_PAGE_HEADER: &Shape = &Struct(&[(1, &Number), (2, &Number), (3, &Number), (4, &Number)]);
const DICTIONARY_PAGE_HEADER: &Shape = &Struct(&[(1, &Number), (2, &Number), (3, &Flag)]);
const PAGE_HEADER: &Shape = &Struct(&[
    (1, &Number),
    (2, &Number),
    (3, &Number),
    (5, DATA_PAGE_HEADER),
    (7, DICTIONARY_PAGE_HEADER),
]);

// Numbers of `PageType` and `Encoding` in parquet.thrift.
const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RLE: i64 = 3;
const RLE_DICTIONARY: i64 = 8;

/// Checks the description of a file, which is its footer without length and magic.
///
/// # Errors
/// It lists more than is there, or has something that windrow does not write.
pub(super) fn check_footer(footer: &[u8]) -> Result<(), FileError> {
    let mut walk = Walk::over(footer);
    walk.value(FILE_META_DATA, &mut Vec::new(), &mut |_, _| {})
}

/// Checks the headers of a column's pages, whose bytes are `chunk`: they have no more rows than a
/// row group, and no more bytes than windrow writes.
///
/// # Errors
/// They have more, or there is a page that windrow does not write.
pub(super) fn check_pages(chunk: &[u8]) -> Result<(), FileError> {
    let mut left = chunk;
    let mut rows_left = ROW_GROUP_ROWS as i64;
    while !left.is_empty() {
        let mut page = Page::default();
        let mut walk = Walk::over(left);
        walk.value(PAGE_HEADER, &mut Vec::new(), &mut |path, number| {
            page.note(path, number);
        })?;
        rows_left -= page.rows()?;
        if rows_left < 0 {
            return Err(damaged("a column has more rows than its row group"));
        }
        let body = usize::try_from(page.compressed).unwrap_or(usize::MAX);
        let rest = walk.left.get(body..);
        left = rest.ok_or_else(|| damaged("a page is longer than its column"))?;
    }
    Ok(())
}

/// What the header of a page says; `None` is what it does not say.
#[derive(Default)]
struct Page {
    kind: Option<i64>,
    uncompressed: Option<i64>,
    compressed: i64,
    values: Option<i64>,
    encoding: Option<i64>,
    /// Whether definition or repetition levels have an encoding that windrow does not write.
    has_strange_levels: bool,
}

impl Page {
    fn note(&mut self, path: &[i64], number: i64) {
        match path {
            [1] => self.kind = Some(number),
            [2] => self.uncompressed = Some(number),
            [3] => self.compressed = number,
            [5 | 7, 1] => self.values = Some(number),
            [5 | 7, 2] => self.encoding = Some(number),
            [5, 3 | 4] => self.has_strange_levels |= number != RLE,
            _ => {}
        }
    }

    /// How many rows it has: a dictionary page has values and no rows.
    fn rows(&self) -> Result<i64, FileError> {
        let is_known = match (self.kind, self.encoding) {
            (Some(DATA_PAGE), Some(PLAIN | PLAIN_DICTIONARY | RLE_DICTIONARY))
            | (Some(DICTIONARY_PAGE), Some(PLAIN | PLAIN_DICTIONARY)) => !self.has_strange_levels,
            _ => false,
        };
        let fits = |number: Option<i64>, max: i64| number.filter(|n| (0..=max).contains(n));
        let values = fits(self.values, ROW_GROUP_ROWS as i64);
        match values.filter(|_| is_known && fits(self.uncompressed, PAGE_BYTES_MAX).is_some()) {
            Some(values) => Ok(if self.kind == Some(DATA_PAGE) {
                values
            } else {
                0
            }),
            None => Err(damaged("it has a page that windrow does not write")),
        }
    }
}

/// Calls back with the numbers of the fields around a number, from the outermost one, and with the
/// number.
type OnNumber<'a> = &'a mut dyn FnMut(&[i64], i64);

/// Bytes in Thrift's compact protocol, of which some were read.
struct Walk<'a> {
    left: &'a [u8],
}

impl<'a> Walk<'a> {
    fn over(left: &'a [u8]) -> Self {
        Self { left }
    }

    /// Reads a value that has this shape. Its time is in proportion to the bytes: a value of a list
    /// has at least one byte, as there are no lists of flags.
    fn value(
        &mut self,
        shape: &Shape,
        path: &mut Vec<i64>,
        on_number: OnNumber<'_>,
    ) -> Result<(), FileError> {
        match shape {
            Flag => {}
            Number => {
                let zigzag = self.varint()?;
                let number = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
                on_number(path, number);
            }
            Bytes => {
                let length = self.varint()?;
                self.take(length)?;
            }
            List(of) => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    few => u64::from(few),
                };
                // An empty list may have 0 as its type.
                if !of.is_kind(head & 15) && head != 0 {
                    return Err(damaged("a list in it has values of another type"));
                }
                for _ in 0..count {
                    self.value(of, path, on_number)?;
                }
            }
            Struct(fields) => {
                let mut last = 0;
                loop {
                    let head = self.byte()?;
                    if head == 0 {
                        return Ok(());
                    }
                    last += i64::from(head >> 4);
                    let field = fields.iter().find(|(number, _)| *number == last);
                    let of = field.map(|(_, of)| of).filter(|of| of.is_kind(head & 15));
                    // A field that stands twice has no distance to the one before.
                    let Some(of) = of.filter(|_| head >> 4 > 0) else {
                        path.push(last);
                        let why = "a description in it has a field that windrow does not write";
                        return Err(damaged(format!("{why}: {path:?}")));
                    };
                    path.push(last);
                    self.value(of, path, on_number)?;
                    path.pop();
                }
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, FileError> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], FileError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let taken = self.left.split_at_checked(count);
        let (taken, left) = taken.ok_or_else(|| damaged("a description in it has no end"))?;
        self.left = left;
        Ok(taken)
    }

    /// An integer, seven bits a byte, the lowest first.
    fn varint(&mut self) -> Result<u64, FileError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(damaged("a number in it is too long"))
    }
}

impl Shape {
    /// Whether the protocol's number of a type is that of this shape.
    fn is_kind(&self, kind: u8) -> bool {
        match self {
            // The flag is the type.
            Flag => matches!(kind, 1 | 2),
            Number => matches!(kind, 4..=6),
            Bytes => kind == 8,
            List(_) => kind == 9,
            Struct(_) => kind == 12,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a data page of 10 values, and its 5 bytes.
    const PAGE: &[u8] = &[
        0x15, 0, 0x15, 200, 1, 0x15, 10, 0x2c, 0x15, 20, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0, 1, 2, 3,
        4, 5,
    ];

    fn with(changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut page = PAGE.to_vec();
        for (at, bytes) in changes {
            page.splice(at..&(at + bytes.len()), bytes.iter().copied());
        }
        page
    }

    #[test]
    fn pages_of_more_than_there_can_be_are_refused() {
        assert_eq!(check_pages(PAGE), Ok(()));
        assert_eq!(check_pages(&[PAGE, PAGE].concat()), Ok(()));
        // A dictionary of 1,000 million values, for which the library would take 32 GB.
        let dictionary = [
            0x15, 4, 0x15, 200, 1, 0x15, 2, 0x4c, 0x15, 128, 168, 214, 185, 7, 0x15, 0, 0x12, 0, 0,
            1,
        ];
        for (page, why) in [
            (
                dictionary.to_vec(),
                "it has a page that windrow does not write",
            ),
            (
                with(&[(1, &[6])]),
                "it has a page that windrow does not write",
            ),
            // Lengths of 5,000 million values, one after the other.
            (
                with(&[(11, &[12])]),
                "it has a page that windrow does not write",
            ),
            (
                with(&[(15, &[8])]),
                "it has a page that windrow does not write",
            ),
            (with(&[(6, &[9])]), "a page is longer than its column"),
            (with(&[(6, &[12])]), "a page is longer than its column"),
            (PAGE[..10].to_vec(), "a description in it has no end"),
            (
                [
                    &with(&[(17, &[0x19])])[..18],
                    &[0xf1, 255, 255, 255, 255, 7],
                ]
                .concat(),
                "a description in it has a field that windrow does not write: [6]",
            ),
        ] {
            assert_eq!(check_pages(&page), Err(damaged(why)), "{page:?}");
        }
        let many = PAGE.repeat(ROW_GROUP_ROWS / 10 + 1);
        let why = "a column has more rows than its row group";
        assert_eq!(check_pages(&many), Err(damaged(why)));
    }

    #[test]
    fn lists_are_no_longer_than_their_bytes() {
        // The version, and 2,000 million elements of the schema, of which there is none.
        let schema = [0x15, 4, 0x19, 0xfc, 128, 168, 214, 185, 7];
        let why = "a description in it has no end";
        assert_eq!(check_footer(&schema), Err(damaged(why)));
        // 2,000 million flags take no bytes.
        let flags = [0x15, 4, 0x19, 0xf1, 128, 168, 214, 185, 7];
        let why = "a list in it has values of another type";
        assert_eq!(check_footer(&flags), Err(damaged(why)));
        assert_eq!(
            check_footer(&[0x15, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            Err(damaged("a number in it is too long"))
        );
    }
}
