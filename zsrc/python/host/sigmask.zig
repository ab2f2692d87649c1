//! signal.pthread_sigmask() in a goroutine: the mask is the program's.
//!
//! A mask is a thread's. Goroutines move, and what a program blocks is to be blocked wherever the
//! kernel might deliver it: on all threads that run goroutines. So what a goroutine changes is
//! changed on each of them. Threads that the program starts inherit it, and have their own from
//! then on, as always. The runtime's other threads block everything.
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const identity = @import("identity.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

const Sigmask = replace.Replacement("_signal", "pthread_sigmask", identity.inGoroutine, call);

/// Before a run. False with an exception set.
pub fn setUp() bool {
    if (!supported) return true;
    Sigmask.install() catch |e| if (e == error.Raised) return false;
    return true;
}

const supported = @import("builtin").os.tag == .linux;

fn call(c: replace.Call) ?*py.Object {
    // Handlers of what was let through run in the call. It stays on its thread.
    const g = lane.here() orelse return Sigmask.callOriginal(c);
    const locked = if (lane.lockThread(g)) |_| true else |_| false;
    // From here on the thread's own mask is what counts.
    g.m.?.mask_again = false;
    const result = Sigmask.callOriginal(c);
    var t: ?*py.Object = null;
    var v: ?*py.Object = null;
    var tb: ?*py.Object = null;
    py.PyErr_Fetch(&t, &v, &tb);
    if (lane.here()) |own| {
        lane.shareMask(own.m.?, os.letInterruptsThrough());
        if (locked) _ = lane.unlockThread(own);
    }
    py.PyErr_Restore(t, v, tb);
    return result;
}
