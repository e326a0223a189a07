//! What machine this is.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use nvml_wrapper::Nvml;

/// What machine this is, as far as the system says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Main memory [bytes]; 0 if the system does not say.
    pub memory_bytes: u64,
    /// Where energy can be read: `RAPL`, the processor's package; `NVML`, NVIDIA's graphics processors.
    pub energy: Vec<&'static str>,
}

/// Looks at the machine.
pub fn machine() -> Machine {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Machine {
        cpu: cpu.unwrap_or("unknown processor").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kilobytes.unwrap_or(0) * 1024,
        energy: [("RAPL", energy_uj()), ("NVML", nvidia_energy_uj())]
            .into_iter()
            .filter_map(|(name, energy)| energy.map(|_| name))
            .collect(),
    }
}

/// The processor package's energy counter [µJ], where the system has one and lets us read it. It wraps around.
pub fn energy_uj() -> Option<u64> {
    let text = fs::read_to_string(Path::new("/sys/class/powercap/intel-rapl:0/energy_uj")).ok()?;
    text.trim().parse().ok()
}

/// What NVIDIA's graphics processors have used since their driver was loaded, all together [µJ]; `None` without the driver's library,
/// without one of them, or if one does not count (it takes Volta or later: NVML, `nvmlDeviceGetTotalEnergyConsumption`).
pub fn nvidia_energy_uj() -> Option<u64> {
    static LIBRARY: OnceLock<Option<Nvml>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Nvml::init().ok()).as_ref()?;
    let count = library.device_count().ok().filter(|&count| count > 0)?;
    let used_mj = |i| library.device_by_index(i).ok()?.total_energy_consumption().ok();
    (0..count).map(used_mj).sum::<Option<u64>>().map(|mj| mj * 1000)
}

/// Memory that this process has in main memory [bytes]; 0 if the system does not say.
pub fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * page_size()
}

#[cfg(target_os = "linux")]
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Nothing is read that would be counted in pages.
#[cfg(not(target_os = "linux"))]
fn page_size() -> u64 {
    0
}

/// Whether this process may ask for a real-time priority. Tries it on a thread of its own.
///
/// # Errors
/// Says what permission is missing.
pub fn real_time_permission() -> Result<(), String> {
    std::thread::spawn(|| crate::threads::be_urgent(1)).join().unwrap_or_else(|_| Err("the attempt failed".to_owned()))
}
