//! Whether a device would compute in less than the precision of the file.

use std::sync::atomic::{AtomicBool, Ordering};

use onbeat_backend::{DeviceKind, Error, LoadOptions, Precision};
use onbeat_onnx::{ElementType, Model};

use crate::provider;

/// Whether Qualcomm's provider was told which chip to compute for. It is one for the whole process: measured with onnxruntime-qnn 2.7.0,
/// every network that is loaded after one that has named a chip computes like on that chip, even after the first is gone.
static CHIP_NAMED: AtomicBool = AtomicBool::new(false);

/// Refuses to let a device lower the precision of a network by itself. Every NPU is taken to compute floating point in 16 bits, whatever
/// its options say. Measured for Qualcomm's simulator as soon as it knows which chip it simulates (onnxruntime-qnn 2.7.0, with
/// `enable_htp_fp16_precision` both 0 and 1); documented for Apple's (coremltools guide, "Typed Execution"); not verified for others.
/// Networks that are quantised or stored in 16 bits keep what they have.
pub(crate) fn check(
    provider: &str,
    kind: DeviceKind,
    options: &LoadOptions,
    settings: &[(String, String)],
    model: &Model,
) -> Result<(), Error> {
    let chip = settings.iter().any(|(key, value)| key == "soc_model" && value != "0");
    let qnn = provider == provider::QNN;
    let lowers = kind == DeviceKind::Npu || qnn && (chip || CHIP_NAMED.load(Ordering::Relaxed));
    if options.precision == Precision::Half || !lowers || keeps_precision(model) {
        // The provider will learn of it now.
        CHIP_NAMED.fetch_or(qnn && chip, Ordering::Relaxed);
        return Ok(());
    }
    Err(Error::unsupported(
        "the device computes floating point in 16 bits, and this network is stored in 32: choose `half` as the precision, or give a \
         quantised network",
    ))
}

/// Whether 16-bit arithmetic takes nothing from a network: it is quantised, stored in 16 bits, or compiled for the device already.
fn keeps_precision(model: &Model) -> bool {
    let graph = model.graph();
    let half = [ElementType::F16.number(), BFLOAT16];
    let stored_in_half = graph.initializer.iter().any(|tensor| tensor.data_type.is_some_and(|it| half.contains(&it)));
    stored_in_half
        || graph.node.iter().any(|node| {
            let operator = node.op_type.as_deref().unwrap_or_default();
            operator == "EPContext"
                || ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"].contains(&operator)
                || operator.starts_with("QLinear")
                || operator.ends_with("Integer")
        })
}

/// The number of bfloat16 in ONNX files.
const BFLOAT16: i32 = 16;

#[cfg(test)]
mod tests {
    use onbeat_backend::ErrorKind;
    use onbeat_onnx::{Builder, Dim};

    use super::*;

    fn network(quantised: bool) -> Model {
        let mut g = Builder::new("net", 17);
        let x = g.input("x", ElementType::F32, &[Dim::Fixed(1)]);
        let one = g.f32("one", &[], vec![1.0]);
        let mut y = g.node("Add", &[&x, &one], &[]);
        if quantised {
            let zero = g.u8("zero", &[], vec![0]);
            y = g.node("QuantizeLinear", &[&y, &one, &zero], &[]);
            y = g.node("DequantizeLinear", &[&y, &one, &zero], &[]);
        }
        g.output_named(&y, "y", ElementType::F32, &[Dim::Fixed(1)]);
        g.into_model()
    }

    #[test]
    fn an_npu_gets_full_precision_networks_only_when_half_is_asked_for() {
        let check = |kind, precision, quantised| {
            let options = LoadOptions { precision, ..LoadOptions::default() };
            check("any", kind, &options, &[], &network(quantised)).map_err(|error| error.kind())
        };
        assert_eq!(check(DeviceKind::Npu, Precision::AsStored, false), Err(ErrorKind::Unsupported));
        assert_eq!(check(DeviceKind::Npu, Precision::Half, false), Ok(()));
        assert_eq!(check(DeviceKind::Npu, Precision::AsStored, true), Ok(()));
        assert_eq!(check(DeviceKind::Gpu, Precision::AsStored, false), Ok(()));
    }
}
