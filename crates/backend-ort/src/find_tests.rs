use super::*;

/// A folder that is gone after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("onbeat-ort-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn runtime_name(version: &str) -> String {
    match OS {
        "windows" => "onnxruntime.dll".to_owned(),
        "macos" => format!("libonnxruntime.{version}.dylib"),
        _ => format!("libonnxruntime.so.{version}"),
    }
}

fn nothing(_: &str) -> Option<OsString> {
    None
}

#[test]
fn providers_are_not_taken_for_the_runtime() {
    assert!(is_runtime("libonnxruntime.so.1.31.1", "linux"));
    assert!(is_runtime("libonnxruntime.so", "linux"));
    assert!(!is_runtime("libonnxruntime_providers_shared.so", "linux"));
    assert!(is_runtime("libonnxruntime.1.31.1.dylib", "macos"));
    assert!(!is_runtime("libonnxruntime_mlx_ep.dylib", "macos"));
    assert!(is_runtime("onnxruntime.dll", "windows"));
    assert!(!is_runtime("onnxruntime_providers_shared.dll", "windows"));
}

#[test]
fn versions_are_read_from_names() {
    assert_eq!(version_in_name(Path::new("a/libonnxruntime.so.1.31.1")).as_deref(), Some("1.31.1"));
    assert_eq!(version_in_name(Path::new("libonnxruntime.1.30.0.dylib")).as_deref(), Some("1.30.0"));
    assert_eq!(version_in_name(Path::new("onnxruntime.dll")), None);
}

#[test]
fn the_newest_python_and_the_newest_library_of_an_environment_come_first() {
    let folder = Folder::new("venv");
    let place = |python: &str, version: &str| {
        folder.file(&format!("lib/{python}/site-packages/onnxruntime/capi/{}", runtime_name(version)))
    };
    place("python3.9", "1.19.2");
    let newest = place("python3.12", "1.31.1");
    if OS != "windows" {
        place("python3.12", "1.9.0");
    }
    let found = libraries_below(&folder.0);
    assert_eq!(found[0], newest);
    assert_eq!(found.len(), 2);
}

#[test]
fn the_layout_of_the_npm_package_is_known() {
    let folder = Folder::new("npm");
    let (system, arch) = (node_system(), node_arch());
    let path = format!("node_modules/onnxruntime-node/bin/napi-v6/{system}/{arch}/{}", runtime_name("1"));
    let library = folder.file(&path);
    assert_eq!(libraries_below(&folder.0), [library]);
}

#[test]
fn what_the_caller_names_comes_before_what_the_environment_names_and_nothing_else_is_tried() {
    let folder = Folder::new("named");
    folder.file(&format!("onnxruntime/capi/{}", runtime_name("1.31.1")));
    let environment = |name: &str| (name == "ORT_DYLIB_PATH").then(|| OsString::from("from-environment"));
    let config = Config { folders: vec![folder.0.clone()], ..Config::default() };
    assert_eq!(Places::new(&config, &environment).libraries(), [PathBuf::from("from-environment")]);
    let config = Config { dylib: Some("from-caller".into()), ..config };
    let places = Places::new(&config, &environment);
    assert_eq!(places.libraries(), [PathBuf::from("from-caller")]);
    assert_eq!(places.named_library(), Some(Path::new("from-caller")));
}

#[test]
fn plugins_are_found_with_their_versions() {
    let folder = Folder::new("plugins");
    let file = library_name("onnxruntime_providers_qnn");
    let library = folder.file(&format!("onnxruntime_qnn/{file}"));
    folder.file("onnxruntime_qnn-2.7.0.dist-info/METADATA");
    let config = Config { folders: vec![folder.0.clone()], ..Config::default() };
    let found = Places::new(&config, &nothing).plugins();
    let qnn = found.iter().find(|candidate| candidate.name == "QNNExecutionProvider").unwrap();
    assert_eq!(qnn.path, library);
    assert_eq!(package_version(&library).as_deref(), Some("2.7.0"));

    // One that was named takes the place of one that was found.
    let config = Config { providers: vec![("mine".into(), PathBuf::from("elsewhere").join(&file))], ..config };
    let found = Places::new(&config, &nothing).plugins();
    assert_eq!(found[0].name, "mine");
    assert!(!found.iter().any(|candidate| candidate.path == library));
    assert_eq!(full_name("qnn"), "QNNExecutionProvider");
    assert_eq!(full_name("QNN.virtual"), "QNN.virtual");
}

#[test]
fn onbeat_ort_lists_folders_libraries_and_plugins() {
    let folder = Folder::new("listed");
    let library = folder.file(&format!("x/{}", runtime_name("1.31.1")));
    let plugin = folder.file(&format!("y/{}", library_name("onnxruntime_providers_vitisai")));
    let listed = std::env::join_paths([&library, &plugin, &folder.0]).unwrap();
    let environment = |name: &str| (name == "ONBEAT_ORT").then(|| listed.clone());
    let places = Places::new(&Config::default(), &environment);
    assert_eq!(places.libraries(), [library]);
    assert_eq!(places.plugins()[0].path, plugin);
    assert_eq!(places.folders[0], folder.0);
}

#[test]
fn nvidia_libraries_are_listed_in_the_order_of_need() {
    let folder = Folder::new("nvidia");
    let plugin = folder.file(&format!("onnxruntime/capi/{}", library_name("onnxruntime_providers_cuda")));
    let library = |name: &str| folder.file(&format!("nvidia/cu13/lib/{DLL_PREFIX}{name}{DLL_SUFFIX}"));
    let (blas, runtime) = (library("cublas"), library("cudart"));
    folder.file("nvidia/cu13/lib/readme");
    assert_eq!(libraries_to_preload(&plugin), [runtime, blas]);
}

#[test]
fn folders_for_other_processors_are_left_alone() {
    assert!(is_arch("arm64", "aarch64"));
    assert!(is_arch("libs_arm64", "aarch64"));
    assert!(!is_arch("arm64", "x86_64"));
    assert!(!is_arch("__pycache__", "x86_64"));
}

#[test]
fn variants_of_a_package_are_told_from_other_packages() {
    let folder = Folder::new("dist");
    folder.file("onnxruntime_qnn-2.7.0.dist-info/METADATA");
    folder.file("onnxruntime_gpu-1.31.1.dist-info/METADATA");
    let library = folder.file("onnxruntime/capi/onnxruntime.dll");
    assert_eq!(package_version(&library).as_deref(), Some("1.31.1"));
}
