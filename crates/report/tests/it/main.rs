//! Integration tests of the report: one binary, one module per output.

mod advice;
mod files;
mod html;
mod sample;
mod table;
mod timeline;
