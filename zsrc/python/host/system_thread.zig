//! What a program's thread changes about the system's thread that it takes for its own.
//!
//! Where such a thread is a goroutine (`[patch] threads`) it keeps a thread from then on, which
//! ends with it, so that no other goroutine sees the change. The mask of signals is in sigmask.zig,
//! since it is often put back. Other goroutines have lock_os_thread().
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const os_thread = @import("os_thread.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

inline fn inThread() bool {
    const g = lane.onThread() orelse return false;
    return goroutine.of(g).is_thread;
}

fn Changing(comptime name: [:0]const u8) type {
    return struct {
        const It = replace.Replacement("posix", name, inThread, call);

        fn call(c: replace.Call) ?*py.Object {
            const p = goroutine.of(lane.here() orelse return It.callOriginal(c));
            // A goroutine that cannot leave the main thread changes that one.
            if (p.g.lock_count == 0 and !os_thread.lockFor(p)) return null;
            return It.callOriginal(c);
        }
    };
}

const all = .{
    Changing("nice").It,
    Changing("setpriority").It,
    Changing("sched_setaffinity").It,
    Changing("sched_setparam").It,
    Changing("sched_setscheduler").It,
    Changing("setns").It,
    Changing("unshare").It,
};

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (@import("builtin").os.tag != .linux) return true;
    inline for (all) |each|
        each.install() catch |e| if (e == error.Raised) return false;
    return true;
}
