//! What a TFLite file holds, as far as the conversion needs it. Slots are positions in the published schema
//! (`tensorflow/lite/schema/schema.fbs`, version 3, checked against the package `tflite` 2.18.0).

use onbeat_backend::Error;

use super::flatbuffer::Table;

/// What the elements of a tensor are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    I32,
    Other,
}

/// A tensor of the file, in the file's layout: pictures are batch, height, width, channels.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    /// Elements as they are stored; empty if the tensor is computed.
    pub(super) data: &'a [u8],
}

/// An operator of the file.
#[derive(Debug)]
pub(super) struct Operator<'a> {
    pub(super) code: i32,
    /// Name of a custom operator, empty otherwise.
    pub(super) custom: &'a str,
    /// Tensors that it takes; −1 where an optional one is left out.
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
    pub(super) options: Table<'a>,
    pub(super) custom_options: &'a [u8],
}

/// A network: the file's first and only subgraph.
#[derive(Debug)]
pub(super) struct Network<'a> {
    pub(super) tensors: Vec<Tensor<'a>>,
    pub(super) operators: Vec<Operator<'a>>,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
}

impl<'a> Network<'a> {
    pub(super) fn read(file: &'a [u8]) -> Result<Self, Error> {
        let model = Table::root(file, *b"TFL3", "Model")?;
        let codes = model.tables(1, "OperatorCode")?;
        let buffers = model.tables(4, "Buffer")?;
        let subgraphs = model.tables(2, "SubGraph")?;
        let [graph] = subgraphs[..] else {
            let found = subgraphs.len();
            return Err(Error::unsupported(format!("the file holds {found} subgraphs; only one is supported")));
        };
        let tensors = graph
            .tables(0, "Tensor")?
            .into_iter()
            .enumerate()
            .map(|(i, table)| Tensor::read(&table, &buffers).map_err(|error| error.about(&format!("tensor {i}"))));
        let operators =
            graph.tables(3, "Operator")?.into_iter().enumerate().map(|(i, table)| {
                Operator::read(&table, &codes).map_err(|error| error.about(&format!("operator {i}")))
            });
        Ok(Self {
            tensors: tensors.collect::<Result<_, _>>()?,
            operators: operators.collect::<Result<_, _>>()?,
            inputs: graph.ints(1, 256)?,
            outputs: graph.ints(2, 256)?,
        })
    }
}

impl<'a> Tensor<'a> {
    fn read(table: &Table<'a>, buffers: &[Table<'a>]) -> Result<Self, Error> {
        let shape: Option<Vec<usize>> = table.ints(0, 8)?.into_iter().map(|size| usize::try_from(size).ok()).collect();
        // Below 2^28 elements, so that no later product of sizes overflows.
        let shape = shape.filter(|it| count(it).is_some_and(|count| (1..1 << 28).contains(&count)));
        let shape =
            shape.ok_or_else(|| Error::invalid_model("a size in its shape is not positive, or far too large"))?;
        let kind = match table.byte(1)? {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::I32,
            _ => Kind::Other,
        };
        let buffer = table.index(2)?;
        let data = buffers.get(buffer).ok_or_else(|| {
            Error::invalid_model(format!("its buffer is number {buffer}, but the file has {}", buffers.len()))
        })?;
        Ok(Self { name: table.text(3)?, shape, kind, data: data.bytes(0)? })
    }
}

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

impl<'a> Operator<'a> {
    fn read(table: &Table<'a>, codes: &[Table<'a>]) -> Result<Self, Error> {
        let index = table.index(0)?;
        let code = codes.get(index).ok_or_else(|| {
            Error::invalid_model(format!("its code is number {index}, but the file has {}", codes.len()))
        })?;
        Ok(Self {
            // Older writers use the one-byte field only, newer ones both; the larger is right.
            code: code.int(3, 0)?.max(i32::from(code.byte(0)?)),
            custom: code.text(1)?,
            inputs: table.ints(1, 256)?,
            outputs: table.ints(2, 256)?,
            options: table.table(4, "options")?.unwrap_or(Table::empty("options")),
            custom_options: table.bytes(5)?,
        })
    }
}
