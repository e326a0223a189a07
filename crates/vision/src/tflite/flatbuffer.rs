//! Reads FlatBuffers without generated code: every offset of the file is checked before it is followed.

use onbeat_backend::Error;

/// A table of the file. Its fields are found by slot, the position of the field in the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    file: &'a [u8],
    /// Where the table begins in the file.
    at: usize,
    /// Offsets of the fields, two bytes each.
    fields: &'a [u8],
    /// Name of the table in the schema, for messages.
    name: &'static str,
}

impl<'a> Table<'a> {
    /// The root of a file with this four-letter identifier.
    pub(super) fn root(file: &'a [u8], identifier: [u8; 4], name: &'static str) -> Result<Self, Error> {
        if file.get(4..8) != Some(&identifier) {
            let wanted = String::from_utf8_lossy(&identifier);
            return Err(Error::invalid_model(format!("bytes 4 to 7 of the file are not the identifier `{wanted}`")));
        }
        Self::at(file, offset(file, 0, name)?, name)
    }

    /// A table without fields: all have their defaults.
    pub(super) fn empty(name: &'static str) -> Self {
        Self { file: &[], at: 0, fields: &[], name }
    }

    fn at(file: &'a [u8], at: usize, name: &'static str) -> Result<Self, Error> {
        let back = array::<4>(file, at).map(i32::from_le_bytes).ok_or_else(|| beyond(name, "itself", at))?;
        // The distance to the vtable is signed: several tables may share a vtable that lies before or after them.
        let vtable = i64::try_from(at).ok().and_then(|at| usize::try_from(at - i64::from(back)).ok());
        let vtable = vtable.ok_or_else(|| beyond(name, "its vtable", at))?;
        let size =
            array::<2>(file, vtable).map(u16::from_le_bytes).ok_or_else(|| beyond(name, "its vtable", vtable))?;
        let fields = file.get(vtable..).and_then(|rest| rest.get(..usize::from(size))).and_then(|it| it.get(4..));
        Ok(Self { file, at, fields: fields.ok_or_else(|| beyond(name, "its vtable", vtable))?, name })
    }

    /// Where a field's value lies; `None` if it has its default.
    fn field(&self, slot: usize) -> Result<Option<usize>, Error> {
        match array::<2>(self.fields, 2 * slot).map(u16::from_le_bytes) {
            None | Some(0) => Ok(None),
            Some(distance) => {
                let at = self.at.checked_add(usize::from(distance));
                at.map(Some).ok_or_else(|| beyond(self.name, "a field", self.at))
            }
        }
    }

    fn scalar<const N: usize>(&self, slot: usize) -> Result<Option<[u8; N]>, Error> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        array(self.file, at).map(Some).ok_or_else(|| beyond(self.name, &format!("field {slot}"), at))
    }

    /// A 32-bit integer.
    pub(super) fn int(&self, slot: usize, default: i32) -> Result<i32, Error> {
        Ok(self.scalar(slot)?.map_or(default, i32::from_le_bytes))
    }

    /// An unsigned 32-bit integer, for the index of something.
    pub(super) fn index(&self, slot: usize) -> Result<usize, Error> {
        Ok(self.scalar(slot)?.map_or(0, u32::from_le_bytes) as usize)
    }

    /// An enumeration of one byte.
    pub(super) fn byte(&self, slot: usize) -> Result<i8, Error> {
        Ok(self.scalar(slot)?.map_or(0, i8::from_le_bytes))
    }

    /// A truth value.
    pub(super) fn flag(&self, slot: usize) -> Result<bool, Error> {
        Ok(self.byte(slot)? != 0)
    }

    /// A table; `None` if there is none.
    pub(super) fn table(&self, slot: usize, name: &'static str) -> Result<Option<Self>, Error> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        Self::at(self.file, offset(self.file, at, name)?, name).map(Some)
    }

    /// The tables of a vector; none if there is no vector.
    pub(super) fn tables(&self, slot: usize, name: &'static str) -> Result<Vec<Self>, Error> {
        let Some((start, bytes)) = self.vector(slot, 4)? else { return Ok(Vec::new()) };
        let starts = (start..start + bytes.len()).step_by(4);
        starts.map(|at| Self::at(self.file, offset(self.file, at, name)?, name)).collect()
    }

    /// The 32-bit integers of a vector of at most `limit`. A damaged file could give one long vector to thousands of tables.
    pub(super) fn ints(&self, slot: usize, limit: usize) -> Result<Vec<i32>, Error> {
        let bytes = self.vector(slot, 4)?.map_or(&[][..], |(_, bytes)| bytes);
        if bytes.len() / 4 > limit {
            let (name, count) = (self.name, bytes.len() / 4);
            return Err(Error::unsupported(format!(
                "{name}: the vector in field {slot} has {count} numbers, more than {limit}"
            )));
        }
        Ok(bytes.chunks_exact(4).map(|it| i32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect())
    }

    /// The bytes of a vector.
    pub(super) fn bytes(&self, slot: usize) -> Result<&'a [u8], Error> {
        Ok(self.vector(slot, 1)?.map_or(&[][..], |(_, bytes)| bytes))
    }

    /// Text; empty if there is none.
    pub(super) fn text(&self, slot: usize) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(slot)?)
            .map_err(|_| Error::invalid_model(format!("{}: field {slot} is not text in UTF-8", self.name)))
    }

    /// Where a vector's elements begin, and their bytes.
    fn vector(&self, slot: usize, element_bytes: usize) -> Result<Option<(usize, &'a [u8])>, Error> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        let error = |at| beyond(self.name, &format!("the vector in field {slot}"), at);
        let at = offset(self.file, at, self.name)?;
        let count = array(self.file, at).map(u32::from_le_bytes).ok_or_else(|| error(at))? as usize;
        let start = at + 4; // Those four bytes were just read.
        let bytes = count.checked_mul(element_bytes).and_then(|size| self.file.get(start..)?.get(..size));
        bytes.map(|bytes| Some((start, bytes))).ok_or_else(|| error(at))
    }
}

/// Follows the unsigned offset that stands at `at`.
fn offset(file: &[u8], at: usize, name: &str) -> Result<usize, Error> {
    let distance = array(file, at).map(u32::from_le_bytes).ok_or_else(|| beyond(name, "its offset", at))?;
    at.checked_add(distance as usize).ok_or_else(|| beyond(name, "itself", at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.get(..N)?.try_into().ok()
}

fn beyond(table: &str, what: &str, at: usize) -> Error {
    Error::invalid_model(format!("{table}: {what}, at byte {at}, lies beyond the end of the file"))
}
