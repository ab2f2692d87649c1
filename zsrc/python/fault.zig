//! A memory fault on a goroutine's stack guard is an overflow: it ends the process, with one clear
//! line and the goroutine's traceback. Any other fault goes to the handler that was there before.
const std = @import("std");
const os = @import("../os/os.zig");
const m_mod = @import("../sched/m.zig");
const stack = @import("../sched/stack.zig");
const py = @import("py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

pub fn install() void {
    os.handleFault(onFault);
}

pub fn remove() void {
    os.handleFault(null);
}

/// On the alternate stack, at any point of the program: nothing here allocates or locks.
fn onFault(address: usize) void {
    const m = m_mod.current() orelse return;
    const g = m.curg orelse return;
    const lane = &host.the_lane;
    const p = goroutine.of(g);
    const size = if (p == goroutine.main) lane.options.stack_main_size else lane.options.stack_size;
    if (g.stack.lo -% address > stack.guardSize(size) or address >= g.stack.lo) return;
    var buffer: [256]u8 = undefined;
    const line = std.fmt.bufPrint(
        &buffer,
        "golibx: fatal: goroutine {d} overflowed its stack of {d} KiB; " ++
            "recursion this deep needs a larger stack.{s} in golib.toml\n",
        .{ g.id, size / 1024, if (p == goroutine.main) "main_size" else "size" },
    ) catch "golibx: fatal: a goroutine overflowed its stack\n";
    os.writeStderr(line);
    if (py.extra._Py_DumpTraceback) |dump| {
        if (p.state) |state| dump(2, state);
    }
    std.c.abort();
}
