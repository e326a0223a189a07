//! Writes small TFLite files.
#![expect(clippy::cast_possible_wrap, reason = "the files are small")]

/// A field of a table.
pub(crate) enum Field {
    Byte(i8),
    Int(i32),
    Table(Table),
    Tables(Vec<Table>),
    Ints(Vec<i32>),
    Bytes(Vec<u8>),
}

/// Fields by slot.
pub(crate) type Table = Vec<(usize, Field)>;

/// A FlatBuffers file.
pub(crate) fn file(identifier: [u8; 4], root: &Table) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&identifier);
    let at = table(&mut out, root);
    out[..4].copy_from_slice(&(at as u32).to_le_bytes());
    out
}

/// Writes a table and what it refers to behind it; where it begins.
fn table(out: &mut Vec<u8>, fields: &Table) -> usize {
    let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
    let vtable = out.len();
    let mut offsets = vec![4 + 2 * slots as u16, 4 + 4 * fields.len() as u16];
    offsets.resize(2 + slots, 0);
    for (i, (slot, _)) in fields.iter().enumerate() {
        offsets[2 + slot] = 4 + 4 * i as u16;
    }
    out.extend(offsets.iter().flat_map(|it| it.to_le_bytes()));
    let start = out.len();
    out.extend_from_slice(&((start - vtable) as i32).to_le_bytes());
    out.resize(start + 4 + 4 * fields.len(), 0);
    for (i, (_, field)) in fields.iter().enumerate() {
        let at = start + 4 + 4 * i;
        let value = match field {
            Field::Byte(value) => i32::from(*value).to_le_bytes(),
            Field::Int(value) => value.to_le_bytes(),
            Field::Table(it) => ((table(out, it) - at) as u32).to_le_bytes(),
            Field::Tables(them) => {
                let vector = vector(out, them.len(), &vec![0; 4 * them.len()]);
                for (j, it) in them.iter().enumerate() {
                    let entry = vector + 4 + 4 * j;
                    let distance = (table(out, it) - entry) as u32;
                    out[entry..entry + 4].copy_from_slice(&distance.to_le_bytes());
                }
                ((vector - at) as u32).to_le_bytes()
            }
            Field::Ints(them) => {
                let bytes: Vec<u8> = them.iter().flat_map(|it| it.to_le_bytes()).collect();
                ((vector(out, them.len(), &bytes) - at) as u32).to_le_bytes()
            }
            Field::Bytes(bytes) => ((vector(out, bytes.len(), bytes) - at) as u32).to_le_bytes(),
        };
        out[at..at + 4].copy_from_slice(&value);
    }
    start
}

fn vector(out: &mut Vec<u8>, count: usize, bytes: &[u8]) -> usize {
    let start = out.len();
    out.extend_from_slice(&(count as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    start
}

/// A TFLite network in the making.
#[derive(Default)]
pub(crate) struct Network {
    tensors: Vec<Table>,
    buffers: Vec<Table>,
    codes: Vec<Table>,
    operators: Vec<Table>,
}

/// Numbers of `TensorType`.
pub(crate) const F32: i8 = 0;
pub(crate) const F16: i8 = 1;
pub(crate) const I32: i8 = 2;

impl Network {
    /// Adds a tensor; its number. Computed tensors have no data.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[i32], kind: i8, data: Vec<u8>) -> i32 {
        self.buffers.push(if data.is_empty() { Vec::new() } else { vec![(0, Field::Bytes(data))] });
        self.tensors.push(vec![
            (0, Field::Ints(shape.to_vec())),
            (1, Field::Byte(kind)),
            (2, Field::Int(self.buffers.len() as i32 - 1)),
            (3, Field::Bytes(name.as_bytes().to_vec())),
        ]);
        self.tensors.len() as i32 - 1
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[i32], values: &[f32]) -> i32 {
        self.tensor(name, shape, F32, values.iter().flat_map(|it| it.to_le_bytes()).collect())
    }

    pub(crate) fn ints(&mut self, name: &str, shape: &[i32], values: &[i32]) -> i32 {
        self.tensor(name, shape, I32, values.iter().flat_map(|it| it.to_le_bytes()).collect())
    }

    /// Adds an operator.
    pub(crate) fn operator(&mut self, code: i8, inputs: &[i32], output: i32, options: Table) {
        self.codes.push(vec![(0, Field::Byte(code))]);
        self.operators.push(vec![
            (0, Field::Int(self.codes.len() as i32 - 1)),
            (1, Field::Ints(inputs.to_vec())),
            (2, Field::Ints(vec![output])),
            (4, Field::Table(options)),
        ]);
    }

    /// Adds an operator of somebody's own.
    pub(crate) fn custom(&mut self, name: &str, inputs: &[i32], output: i32, options: &[i32]) {
        self.codes.push(vec![(0, Field::Byte(32)), (1, Field::Bytes(name.as_bytes().to_vec()))]);
        self.operators.push(vec![
            (0, Field::Int(self.codes.len() as i32 - 1)),
            (1, Field::Ints(inputs.to_vec())),
            (2, Field::Ints(vec![output])),
            (5, Field::Bytes(options.iter().flat_map(|it| it.to_le_bytes()).collect())),
        ]);
    }

    /// The file.
    pub(crate) fn finish(self, inputs: &[i32], outputs: &[i32]) -> Vec<u8> {
        let graph = vec![
            (0, Field::Tables(self.tensors)),
            (1, Field::Ints(inputs.to_vec())),
            (2, Field::Ints(outputs.to_vec())),
            (3, Field::Tables(self.operators)),
        ];
        let model = vec![
            (0, Field::Int(3)),
            (1, Field::Tables(self.codes)),
            (2, Field::Tables(vec![graph])),
            (4, Field::Tables(self.buffers)),
        ];
        file(*b"TFL3", &model)
    }
}
