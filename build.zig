//! Builds the golibx native library: one shared library a target holds the scheduler and the
//! `golibx._core` extension module.
//!
//!   zig build                       the host's library, into zig-out/lib
//!   zig build -Doptimize=debug      the same with assertions and symbols
//!   zig build test                  the unit tests of the Zig core, no Python needed
//!   zig build all                   the library for all six targets, into zig-out/all
const std = @import("std");

const targets = [_][]const u8{
    "x86_64-linux-gnu.2.17",
    "aarch64-linux-gnu.2.17",
    "x86_64-macos.11.0",
    "aarch64-macos.11.0",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
};

pub fn build(b: *std.Build) !void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "Build mode (default: fast)") orelse
        .fast;

    const lib = library(b, target, optimize);
    const host_name = libraryName(target.result.os.tag);
    b.getInstallStep().dependOn(&b.addInstallFileWithDir(lib.getEmittedBin(), .lib, host_name).step);

    const tests = b.addTest(.{
        .root_module = module(b, "zsrc/tests.zig", target, optimize),
        .use_llvm = true,
    });
    const run_tests = b.addRunArtifact(tests);
    run_tests.has_side_effects = true;
    b.step("test", "Run the Zig core's unit tests").dependOn(&run_tests.step);

    const all = b.step("all", "Build the library for all six targets");
    for (targets) |triple| {
        const query = try std.Target.Query.parse(.{ .arch_os_abi = triple });
        const resolved = b.resolveTargetQuery(query);
        const cross = library(b, resolved, optimize);
        const name = b.fmt("all/{s}/{s}", .{ triple, libraryName(resolved.result.os.tag) });
        all.dependOn(&b.addInstallFile(cross.getEmittedBin(), name).step);
    }
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
    return b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .strip = if (optimize == .debug) false else null,
        .omit_frame_pointer = false,
        .pic = true,
    });
}

fn library(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
) *std.Build.Step.Compile {
    const root = module(b, "zsrc/root.zig", target, optimize);
    const lib = b.addLibrary(.{
        .name = "golibx",
        .linkage = .dynamic,
        .root_module = root,
        .use_llvm = true,
    });
    if (target.result.os.tag == .windows) {
        root.addObjectFile(pythonImportLibrary(b, target.result.cpu.arch));
    } else {
        // CPython's symbols come from the process that loads the extension.
        lib.linker_allow_shlib_undefined = true;
    }
    return lib;
}

/// What stands for python3.dll, the stable ABI's, when linking for Windows: an import library of
/// the names that zsrc/python declares, so that building needs no Python for Windows.
fn pythonImportLibrary(b: *std.Build, arch: std.Target.Cpu.Arch) std.Build.LazyPath {
    var definitions: std.ArrayList(u8) = .empty;
    definitions.appendSlice(b.allocator, "LIBRARY python3.dll\nEXPORTS\n") catch @panic("OOM");
    for (python_sources) |path| {
        b.dependOnFileContents(b.path(path));
        const source = b.root.root_dir.handle.readFileAlloc(
            b.graph.io,
            b.pathJoin(&.{ b.root.sub_path, path }),
            b.allocator,
            .limited(1 << 20),
        ) catch |err| std.process.fatal("cannot read {s}: {t}", .{ path, err });
        appendDefinitions(b.allocator, &definitions, source) catch @panic("OOM");
    }

    const dlltool = b.addSystemCommand(&.{ b.graph.zig_exe, "dlltool", "-D", "python3.dll" });
    dlltool.addArgs(&.{ "-m", if (arch == .aarch64) "arm64" else "i386:x86-64" });
    dlltool.addArg("-d");
    dlltool.addFileArg(b.addWriteFiles().add("python3.def", definitions.items));
    dlltool.addArg("-l");
    return dlltool.addOutputFileArg("python3.lib");
}

/// The files that declare functions and variables of CPython.
const python_sources = [_][]const u8{ "zsrc/python/py.zig", "zsrc/python/socket.zig" };

/// A line for each `extern` declaration of CPython's: `NAME`, or `NAME DATA`.
fn appendDefinitions(
    gpa: std.mem.Allocator,
    definitions: *std.ArrayList(u8),
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
        try definitions.print(gpa, "    {s}{s}\n", .{ name, if (is_function) "" else " DATA" });
    }
}
