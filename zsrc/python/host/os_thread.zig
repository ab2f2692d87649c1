//! lock_os_thread() and unlock_os_thread(): the program's way to goroutines with a thread of their
//! own, which are serial/locked.zig's.
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const sigmask = @import("sigmask.zig");

const lane = &host.the_lane;

pub fn lock() ?*py.Object {
    const p = goroutine.forPark() orelse return null;
    return if (lockFor(p)) py.returnNone() else null;
}

/// Locks the calling goroutine to its thread. False with an exception set.
pub fn lockFor(p: *goroutine.PyG) bool {
    lane.lockThread(&p.g) catch |e| {
        _ = switch (e) {
            error.OutOfMemory => py.PyErr_NoMemory(),
            error.ThreadLimit => py.raise(
                py.exc.runtimeError(),
                "there is no thread for goroutine {d}: {d} are locked to theirs, " ++
                    "and [runtime] max_threads is {d}",
                .{ p.g.id, lane.locked_count, lane.options.max_threads },
            ),
        };
        return false;
    };
    return true;
}

/// Raises no cancellation: it is what a `finally` block does.
pub fn unlock() ?*py.Object {
    const p = goroutine.forCall() orelse return null;
    // The lock that a mask of its own needs is not the program's.
    const is_masks = p.g.lock_count == 1 and sigmask.hasOwn(&p.g);
    if (is_masks or !lane.unlockThread(&p.g))
        return py.raise(
            py.exc.runtimeError(),
            "goroutine {d} is not locked to its thread",
            .{p.g.id},
        );
    return py.returnNone();
}
