//! Files that tests write: a folder for them, GGUF's container, and a small llama with random weights.

use std::path::PathBuf;

/// Writes GGUF files, version 3, for tests.
#[derive(Default)]
pub(crate) struct GgufWriter {
    pairs: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl GgufWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn pair(&mut self, key: &str, value_type: u32, value: &[u8]) -> &mut Self {
        let mut bytes = string(key);
        bytes.extend(value_type.to_le_bytes());
        bytes.extend(value);
        self.pairs.push(bytes);
        self
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.pair(key, 8, &string(value))
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.pair(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[&str]) -> &mut Self {
        let items: Vec<u8> = values.iter().flat_map(|it| string(it)).collect();
        self.list(key, 8, values.len(), &items)
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let items: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.list(key, 5, values.len(), &items)
    }

    fn list(&mut self, key: &str, item: u32, count: usize, items: &[u8]) -> &mut Self {
        let mut bytes = item.to_le_bytes().to_vec();
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(items);
        self.pair(key, 9, &bytes)
    }

    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], tensor_type: u32, bytes: &[u8]) -> &mut Self {
        let mut info = string(name);
        info.extend((shape.len() as u32).to_le_bytes());
        info.extend(shape.iter().flat_map(|&size| (size as u64).to_le_bytes()));
        info.extend(tensor_type.to_le_bytes());
        info.extend((self.data.len() as u64).to_le_bytes());
        self.infos.push(info);
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    pub(crate) fn f32_tensor(&mut self, name: &str, shape: &[usize], numbers: &[f32]) -> &mut Self {
        let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.tensor(name, shape, 0, &bytes)
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((self.infos.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        file.extend(self.pairs.concat());
        file.extend(self.infos.concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }
}

/// Pseudo-random numbers, the same on every machine.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// −1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }
}

/// How the weights of [`tiny_llama`] are stored.
#[derive(Clone, Copy)]
pub(crate) enum Storage {
    /// As 32-bit floating point: what is computed differs from the reference by rounding only.
    Float,
    /// As blocks of several types.
    Blocks,
}

pub(crate) const TINY_LAYERS: usize = 2;
pub(crate) const TINY_WIDTH: usize = 64;
pub(crate) const TINY_HEADS: usize = 4;
pub(crate) const TINY_KV_HEADS: usize = 2;
pub(crate) const TINY_HEAD: usize = 16;
pub(crate) const TINY_INNER: usize = 96;
pub(crate) const TINY_CONTEXT: usize = 64;
pub(crate) const TINY_BASE: f32 = 10_000.0;
pub(crate) const TINY_EPSILON: f32 = 1e-5;

/// ChatML's marks of a turn's beginning and end.
pub(crate) const CHAT: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// A vocabulary of all bytes, ChatML's marks and two merges.
pub(crate) fn tiny_tokens() -> Vec<String> {
    tokens(CHAT)
}

fn tokens(marks: [&str; 2]) -> Vec<String> {
    let mut bytes: Vec<(u8, char)> = rten_text::models::char_to_byte().into_iter().map(|(c, byte)| (byte, c)).collect();
    bytes.sort_unstable();
    let bytes = bytes.into_iter().map(|(_, c)| c.to_string());
    bytes.chain([marks[0], marks[1], "he", "hel"].map(str::to_owned)).collect()
}

/// A llama with random weights.
pub(crate) fn tiny_llama(storage: Storage) -> Vec<u8> {
    llama(storage, TINY_CONTEXT, CHAT)
}

/// The same with another context and other marks; without ChatML's, prompts are taken as they are.
pub(crate) fn llama(storage: Storage, context: usize, marks: [&str; 2]) -> Vec<u8> {
    let mut file = GgufWriter::new();
    let tokens = tokens(marks);
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let types: Vec<i32> = texts.iter().map(|it| if it.starts_with("<|") { 3 } else { 1 }).collect();
    file.text("general.architecture", "llama").text("general.name", "tiny");
    for (key, value) in [
        ("block_count", TINY_LAYERS),
        ("context_length", context),
        ("embedding_length", TINY_WIDTH),
        ("feed_forward_length", TINY_INNER),
        ("attention.head_count", TINY_HEADS),
        ("attention.head_count_kv", TINY_KV_HEADS),
    ] {
        file.u32(&format!("llama.{key}"), value as u32);
    }
    file.f32("llama.rope.freq_base", TINY_BASE).f32("llama.attention.layer_norm_rms_epsilon", TINY_EPSILON);
    file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
    file.texts("tokenizer.ggml.tokens", &texts).i32s("tokenizer.ggml.token_type", &types);
    file.texts("tokenizer.ggml.merges", &["h e", "he l"]).u32("tokenizer.ggml.eos_token_id", 257);
    let mut random = Lcg(1);
    let kv = TINY_KV_HEADS * TINY_HEAD;
    matrix(&mut file, &mut random, storage, "token_embd", [TINY_WIDTH, tokens.len()], 8);
    for layer in 0..TINY_LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}");
        for part in ["attn_norm", "ffn_norm"] {
            vector(&mut file, &mut random, &name(part));
        }
        for (part, shape, stored) in [
            ("attn_q", [TINY_WIDTH, TINY_WIDTH], 3),
            ("attn_k", [TINY_WIDTH, kv], 3),
            // Another type than its neighbours: it cannot become one matrix with them.
            ("attn_v", [TINY_WIDTH, kv], 8),
            ("attn_output", [TINY_WIDTH, TINY_WIDTH], 2),
            ("ffn_gate", [TINY_WIDTH, TINY_INNER], 3),
            ("ffn_up", [TINY_WIDTH, TINY_INNER], 3),
            ("ffn_down", [TINY_INNER, TINY_WIDTH], 6),
        ] {
            matrix(&mut file, &mut random, storage, &name(part), shape, stored);
        }
    }
    vector(&mut file, &mut random, "output_norm");
    if let Storage::Blocks = storage {
        // With a head of its own; that of the other one is its embedding.
        matrix(&mut file, &mut random, storage, "output", [TINY_WIDTH, tokens.len()], 3);
    }
    file.finish()
}

fn vector(file: &mut GgufWriter, random: &mut Lcg, name: &str) {
    let numbers: Vec<f32> = (0..TINY_WIDTH).map(|_| 1.0 + 0.3 * random.unit()).collect();
    file.f32_tensor(&format!("{name}.weight"), &[TINY_WIDTH], &numbers);
}

/// Random numbers; as blocks: random codes, with scales (and minima) of 16-bit floating point.
fn matrix(file: &mut GgufWriter, random: &mut Lcg, storage: Storage, name: &str, shape: [usize; 2], stored: u32) {
    let name = format!("{name}.weight");
    let count = shape[0] * shape[1];
    if let Storage::Float = storage {
        let numbers: Vec<f32> = (0..count).map(|_| 0.3 * random.unit()).collect();
        file.f32_tensor(&name, &shape, &numbers);
        return;
    }
    // Bits of 0.03, 0.015 and 0.002; minus 7.5 codes as the minimum.
    let (scale, min, codes) = match stored {
        2 => (0x27AE_u16, None, 16),
        3 => (0x27AE, Some(0xB333_u16), 16),
        6 => (0x23AE, None, 20),
        _ => (0x1818, None, 32),
    };
    let mut bytes = Vec::new();
    for _ in 0..count / 32 {
        bytes.extend(scale.to_le_bytes());
        bytes.extend(min.into_iter().flat_map(u16::to_le_bytes));
        bytes.extend((0..codes).map(|_| random.next() as u8));
    }
    file.tensor(&name, &shape, stored, &bytes);
}

/// A folder that goes away with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("onbeat-language-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
