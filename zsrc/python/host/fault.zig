//! A memory fault on a goroutine's stack guard is an overflow. In the stack's reserve, the program
//! is told by a RecursionError (recursion.zig); below it ends the process, with one clear line and
//! the goroutine's traceback. Any other fault goes to the disposition that was there before, and so
//! does a signal of that number that was sent. Code that sets a disposition while a run lasts has
//! to set that one, and not take this one's place: faulthandler here, signal.signal() in
//! golibx/patch/signals.py.
const std = @import("std");
const os = @import("../../os/os.zig");
const m_mod = @import("../../serial/m.zig");
const stack = @import("../../serial/stack.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const recursion = @import("recursion.zig");
const fork = @import("../run/fork.zig");
const replace = @import("replace.zig");

/// faulthandler.dump_traceback and its arguments, for Pythons that do not export what it calls.
var dump_traceback: ?*py.Object = null;
var dump_arguments: ?*py.Object = null;

/// With the interpreter's lock.
pub fn install() void {
    if (py.extra._Py_DumpTraceback == null and dump_traceback == null) prepareDump();
    os.handleFault(onFault);
    installed = true;
}

fn prepareDump() void {
    defer py.PyErr_Clear();
    const module = py.PyImport_ImportModule("faulthandler") orelse return;
    defer py.decref(module);
    const stderr = py.PyLong_FromLongLong(2) orelse return;
    defer py.decref(stderr);
    const all_threads = py.boolean(false);
    defer py.decref(all_threads);
    dump_arguments = py.PyTuple_Pack(2, stderr, all_threads) orelse return;
    dump_traceback = py.PyObject_GetAttrString(module, "dump_traceback");
}

pub fn remove() void {
    os.handleFault(null);
    installed = false;
}

var installed = false;

/// handle_faults(on)
pub fn switchHandler(on: *py.Object) bool {
    const before = installed;
    if (py.isTrue(on)) install() else remove();
    return before;
}

inline fn isInstalled() bool {
    return installed;
}

const Enable = replace.Replacement("faulthandler", "enable", isInstalled, enable);
const Disable = replace.Replacement("faulthandler", "disable", isInstalled, disable);

fn enable(c: replace.Call) ?*py.Object {
    remove();
    defer install();
    return Enable.callOriginal(c);
}

fn disable(c: replace.Call) ?*py.Object {
    remove();
    defer install();
    return Disable.callOriginal(c);
}

/// Before a run. False with an exception set.
pub fn setUp() bool {
    Enable.install() catch return false;
    Disable.install() catch return false;
    return true;
}

fn writeOverflow(id: u64, size: usize, is_main: bool) void {
    const larger_kib = @min(size * 8, 1 << 30) / 1024;
    const in_mib = larger_kib % 1024 == 0;
    const larger = if (in_mib) larger_kib / 1024 else larger_kib;
    const unit = if (in_mib) "MiB" else "KiB";
    const key = if (is_main) "main_size" else "size";
    const variable = if (is_main) "MAIN_SIZE" else "SIZE";
    var buffer: [256]u8 = undefined;
    const text = "golibx: fatal: goroutine {d} overflowed its stack of {d} KiB; recursion this " ++
        "deep needs a larger one: stack.{s} = \"{d}{s}\" in golib.toml, or " ++
        "GOLIB_STACK_{s}={d}{s}\n";
    const values = .{ id, size / 1024, key, larger, unit, variable, larger, unit };
    const line = std.fmt.bufPrint(&buffer, text, values) catch
        "golibx: fatal: a goroutine overflowed its stack\n";
    os.writeStderr(line);
}

/// On the alternate stack, at any point of the program: nothing here allocates or locks.
fn onFault(address: usize) bool {
    const g = if (m_mod.current()) |m|
        m.curg orelse return false
    else
        &(fork.here() orelse return false).g;
    const lane = &host.the_lane;
    const p = goroutine.of(g);
    const size = if (p == goroutine.main) lane.options.stack_main_size else lane.options.stack_size;
    if (recursion.open(p, address)) return true;
    const begin = g.stack.lo -% stack.guardSize(size);
    const end = g.stack.lo + recursion.sizeOfReserve(g.stack);
    if (address -% begin >= end - begin) return false;
    writeOverflow(g.id, size, p == goroutine.main);
    if (py.extra._Py_DumpTraceback) |dump| {
        if (p.state) |state| dump(2, state);
    } else if (dump_traceback) |dump| {
        // It allocates nothing. The goroutine's thread state is current, unless it overflowed in a
        // call that had released the interpreter's lock.
        const state = py.extra.PyThreadState_GetUnchecked orelse return std.c.abort();
        if (@as(?*anyopaque, state()) == @as(?*anyopaque, p.state))
            _ = py.PyObject_Call(dump, dump_arguments.?, null);
    }
    std.c.abort();
}
