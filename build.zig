//! Builds the golibx native library: one shared library a target holds the scheduler and the
//! `golibx._core` extension module.
//!
//!   zig build                       the host's library, into zig-out/lib
//!   zig build -Doptimize=debug      the same with assertions and symbols
//!   zig build test                  the unit tests of the Zig core, no Python needed
//!   zig build check                 explores the interleavings of the concurrent parts
//!   zig build stress                the storms on the native lane, into zig-out/bin
//!   zig build all                   the library for all targets, into zig-out/all
const std = @import("std");

const targets = [_][]const u8{
    "x86_64-linux-gnu.2.17",
    "aarch64-linux-gnu.2.17",
    "x86_64-linux-musl",
    "aarch64-linux-musl",
    "x86_64-macos.11.0",
    "aarch64-macos.11.0",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
};

pub fn build(b: *std.Build) !void {
    const target = b.standardTargetOptions(.{});
    const mode = b.option(std.builtin.OptimizeMode, "optimize", "Build mode (default: fast)");
    const optimize = mode orelse .fast;
    const strip = b.option(bool, "strip", "A library with no symbols but those it exports") orelse
        false;

    const lib = library(b, target, optimize, strip);
    const host_name = libraryName(target.result.os.tag);
    const install = b.getInstallStep();
    install.dependOn(&b.addInstallFileWithDir(lib.file, .lib, host_name).step);
    if (lib.import_library) |file|
        install.dependOn(&b.addInstallFileWithDir(file, .lib, "_core.lib").step);

    const tests = b.addTest(.{
        .root_module = module(b, "zsrc/tests.zig", target, optimize),
        .use_llvm = true,
    });
    const run_tests = b.addRunArtifact(tests);
    run_tests.has_side_effects = true;
    b.step("test", "Run the Zig core's unit tests").dependOn(&run_tests.step);

    const stress = b.addInstallArtifact(stressProgram(b, target, optimize), .{});
    b.step("stress", "Build the storms of tests/native_stress, into bin/").dependOn(&stress.step);

    addCheck(b, target);

    const all = b.step("all", "Build the library for all targets");
    for (targets) |triple| {
        const query = try std.Target.Query.parse(.{ .arch_os_abi = triple });
        const resolved = b.resolveTargetQuery(query);
        const cross = library(b, resolved, optimize, strip);
        const name = b.fmt("all/{s}/{s}", .{ triple, libraryName(resolved.result.os.tag) });
        all.dependOn(&b.addInstallFile(cross.file, name).step);
    }
}

/// The explorer with its models, in two programs that compile side by side.
fn addCheck(b: *std.Build, target: std.Build.ResolvedTarget) void {
    const step = b.step("check", "Explore the interleavings of the concurrent parts");
    const depth = b.option(
        u32,
        "check-depth",
        "Preemptions that check explores (default: by model)",
    );
    const seconds = b.option(u32, "check-seconds", "How long check explores a model (default: 20)");
    const only = b.option(
        []const u8,
        "check-only",
        "Builds and runs only the models whose name contains this",
    ) orelse "";
    for ([_][]const u8{ "parts", "lanes" }) |group| {
        const program = b.addExecutable(.{
            .name = b.fmt("check-{s}", .{group}),
            .root_module = module(b, "zsrc/check_main.zig", target, .safe),
            .use_llvm = true,
        });
        const options = b.addOptions();
        options.addOption([]const u8, "group", group);
        options.addOption([]const u8, "only", only);
        program.root_module.addOptions("check_options", options);
        const run = b.addRunArtifact(program);
        run.has_side_effects = true;
        run.stdio = .inherit;
        if (depth) |n| run.addArgs(&.{ "--depth", b.fmt("{d}", .{n}) });
        if (seconds) |n| run.addArgs(&.{ "--seconds", b.fmt("{d}", .{n}) });
        run.addPassthruArgs();
        step.dependOn(&run.step);
    }
}

/// The storms with the native lane in one program, for where there is no Python, or no loading of a
/// library: under an emulator, or with ThreadSanitizer.
fn stressProgram(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Step.Compile {
    const sanitize = b.option(bool, "sanitize-thread", "ThreadSanitizer, for the storms");
    const core = module(b, "zsrc/native_main.zig", target, optimize);
    core.sanitize_thread = sanitize orelse false;
    const program = b.createModule(.{
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .sanitize_thread = sanitize,
    });
    program.addObject(b.addObject(.{ .name = "core", .root_module = core, .use_llvm = true }));
    program.addIncludePath(b.path("zsrc"));
    program.addCSourceFile(.{
        .file = b.path("tests/native_stress/stress.c"),
        .flags = &.{ "-std=gnu11", "-O2", "-fno-sanitize=undefined", "-DSTRESS_STATIC" },
    });
    return b.addExecutable(.{ .name = "stress", .root_module = program, .use_llvm = true });
}

fn libraryName(os: std.Target.Os.Tag) []const u8 {
    return if (os == .windows) "_core.pyd" else "_core.abi3.so";
}

fn module(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Module {
    const new = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .strip = if (optimize == .debug) false else null,
        .omit_frame_pointer = false,
        .pic = true,
    });
    const options = b.addOptions();
    options.addOption([:0]const u8, "text", versionText(b));
    new.addOptions("version", options);
    new.addAnonymousImport("schema", .{ .root_source_file = b.path("golibx/schema.py") });
    return new;
}

/// A file of the repository, on whose contents the build depends from here on.
fn readSource(b: *std.Build, path: []const u8) []const u8 {
    b.dependOnFileContents(b.path(path));
    return b.root.root_dir.handle.readFileAlloc(
        b.graph.io,
        b.pathJoin(&.{ b.root.sub_path, path }),
        b.allocator,
        .limited(1 << 20),
    ) catch |err| std.process.fatal("cannot read {s}: {t}", .{ path, err });
}

/// What golibx/version.py says.
fn versionText(b: *std.Build) [:0]const u8 {
    const path = "golibx/version.py";
    const source = readSource(b, path);
    const name = "__version__ = \"";
    const start = (std.mem.indexOf(u8, source, name) orelse
        std.process.fatal("{s} says no version", .{path})) + name.len;
    const end = std.mem.indexOfScalarPos(u8, source, start, '"') orelse source.len;
    return b.allocator.dupeSentinel(u8, source[start..end], 0) catch @panic("OOM");
}

const Library = struct {
    file: std.Build.LazyPath,
    /// What a program is linked with instead: on Windows.
    import_library: ?std.Build.LazyPath = null,
};

/// The library. CPython's symbols are weak in it, and come from the process that loads it:
/// Python, or a program that has none. Such a program names what it was linked with in the words of
/// the library itself, so that these have to be the file's name.
fn library(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    strip: bool,
) Library {
    const root = module(b, "zsrc/root.zig", target, optimize);
    if (strip) root.strip = true;
    const os = target.result.os.tag;
    if (os != .windows and os != .macos) return .{ .file = elfLibrary(b, root, optimize) };
    const lib = b.addLibrary(.{
        .name = "golibx",
        .linkage = .dynamic,
        .root_module = root,
        .use_llvm = true,
    });
    var own: ?std.Build.LazyPath = null;
    if (os == .windows) {
        root.addObjectFile(pythonImportLibrary(b, target.result.cpu.arch));
        // The linker's own would name a golibx.dll.
        own = ownImportLibrary(b, target.result.cpu.arch);
    } else {
        lib.linker_allow_shlib_undefined = true;
        lib.install_name = b.fmt("@rpath/{s}", .{libraryName(os)});
    }
    return .{ .file = lib.getEmittedBin(), .import_library = own };
}

/// Links with a command of its own, because std.Build cannot set the name in the library, its
/// SONAME, to anything but lib*.so.
fn elfLibrary(
    b: *std.Build,
    root: *std.Build.Module,
    optimize: std.builtin.OptimizeMode,
) std.Build.LazyPath {
    const target = root.resolved_target.?;
    const file = libraryName(target.result.os.tag);
    const object = b.addObject(.{ .name = "golibx", .root_module = root, .use_llvm = true });
    const link = b.addSystemCommand(&.{ b.graph.zig_exe, "build-lib", "-dynamic", "-lc" });
    link.addArgs(&.{ "-O", @tagName(optimize), "-fallow-shlib-undefined" });
    if (root.strip == true) link.addArg("-fstrip");
    link.addArgs(&.{ "-target", target.query.zigTriple(b.allocator) catch @panic("OOM") });
    link.addArgs(&.{ "--name", "golibx", b.fmt("-fsoname={s}", .{file}), "--cache-dir" });
    link.addDirectoryArg(.cache_root);
    link.addArtifactArg(object);
    return link.addPrefixedOutputFileArg("-femit-bin=", file);
}

/// What stands for python3.dll, the stable ABI's, when linking for Windows: an import library of
/// the names that zsrc/python declares, so that building needs no Python for Windows.
fn pythonImportLibrary(b: *std.Build, arch: std.Target.Cpu.Arch) std.Build.LazyPath {
    var names: std.ArrayList(u8) = .empty;
    appendDeclared(b.allocator, &names, readSource(b, python_source)) catch @panic("OOM");
    return importLibrary(b, arch, "python3.dll", "python3.lib", names.items);
}

/// What a C program for Windows is linked with: the names of golibx.h, in the extension module.
fn ownImportLibrary(b: *std.Build, arch: std.Target.Cpu.Arch) std.Build.LazyPath {
    var names: std.ArrayList(u8) = .empty;
    appendCalled(b.allocator, &names, readSource(b, "zsrc/golibx.h")) catch @panic("OOM");
    return importLibrary(b, arch, libraryName(.windows), "_core.lib", names.items);
}

fn importLibrary(
    b: *std.Build,
    arch: std.Target.Cpu.Arch,
    library_name: []const u8,
    file: []const u8,
    names: []const u8,
) std.Build.LazyPath {
    const definitions = b.fmt("LIBRARY {s}\nEXPORTS\n{s}", .{ library_name, names });
    const dlltool = b.addSystemCommand(&.{ b.graph.zig_exe, "dlltool", "-D", library_name });
    dlltool.addArgs(&.{ "-m", if (arch == .aarch64) "arm64" else "i386:x86-64" });
    dlltool.addArg("-d");
    dlltool.addFileArg(b.addWriteFiles().add(b.fmt("{s}.def", .{file}), definitions));
    dlltool.addArg("-l");
    return dlltool.addOutputFileArg(file);
}

/// The file that declares CPython's functions and variables.
const python_source = "zsrc/python/py.zig";

/// A line for each `extern` declaration of CPython's: `NAME`, or `NAME DATA`.
fn appendDeclared(
    gpa: std.mem.Allocator,
    names: *std.ArrayList(u8),
    source: []const u8,
) !void {
    var lines = std.mem.splitScalar(u8, source, '\n');
    while (lines.next()) |line| {
        var words = std.mem.tokenizeAny(u8, line, " (:");
        var word = words.next() orelse continue;
        if (std.mem.eql(u8, word, "pub")) word = words.next() orelse continue;
        if (!std.mem.eql(u8, word, "extern")) continue;
        const is_function = std.mem.eql(u8, words.next() orelse continue, "fn");
        const name = words.next() orelse continue;
        if (!std.mem.startsWith(u8, std.mem.trimStart(u8, name, "_"), "Py")) continue;
        try names.print(gpa, "    {s}{s}\n", .{ name, if (is_function) "" else " DATA" });
    }
}

/// A line for each golibx_NAME that a parenthesis follows, in a declaration or a comment.
fn appendCalled(gpa: std.mem.Allocator, names: *std.ArrayList(u8), source: []const u8) !void {
    var seen: std.StringHashMapUnmanaged(void) = .empty;
    defer seen.deinit(gpa);
    var words = std.mem.tokenizeAny(u8, source, " *,;)\n\t");
    while (words.next()) |word| {
        if (!std.mem.startsWith(u8, word, "golibx_")) continue;
        const end = std.mem.indexOfScalar(u8, word, '(') orelse continue;
        if ((try seen.getOrPut(gpa, word[0..end])).found_existing) continue;
        try names.print(gpa, "    {s}\n", .{word[0..end]});
    }
}
