//! signal.pthread_sigmask() in a goroutine: the mask is the program's.
//!
//! A mask is a thread's. Goroutines move, and what a program blocks has to be blocked wherever the
//! kernel might deliver it: on all threads that run goroutines. So what a goroutine changes is
//! changed on each of them. Threads that the program starts inherit it, and have their own from
//! then on, as always: one that is a goroutine (`[patch] threads`) keeps a thread to itself as long
//! as its mask differs. The runtime's other threads block everything.
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const identity = @import("identity.zig");
const replace = @import("replace.zig");

const G = @import("../../serial/g.zig").G;
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
    // The main thread's mask stays the program's, also if a goroutine cannot leave that thread.
    if (locked and goroutine.of(g).is_thread and !g.m.?.main) return callInThread(c, g);
    // From here on the thread's own mask is what counts.
    g.m.?.mask_again = false;
    const result = Sigmask.callOriginal(c);
    const e = py.takeException();
    if (lane.here()) |own| {
        lane.shareMask(own.m.?, os.letInterruptsThrough());
        if (locked) _ = lane.unlockThread(own);
    }
    if (e) |exception| py.restoreException(exception);
    return result;
}

/// Of a goroutine that is a thread of the program: the mask is its own.
/// One lock keeps its thread while it has one.
fn callInThread(c: replace.Call, g: *G) ?*py.Object {
    const m = g.m.?;
    const had = m.keeps_mask;
    if (!had) lane.keepMask(m);
    const result = Sigmask.callOriginal(c);
    const e = py.takeException();
    if (lane.here() == g) {
        const mask = os.letInterruptsThrough();
        m.keeps_mask = !os.sameMask(&mask, &lane.signal_mask);
        if (had) _ = lane.unlockThread(g);
        if (!m.keeps_mask) _ = lane.unlockThread(g);
    }
    if (e) |exception| py.restoreException(exception);
    return result;
}

pub fn hasOwn(g: *const G) bool {
    return if (g.locked_m) |m| m.keeps_mask else false;
}

/// has_own_mask()
pub fn callerHasOwn() ?*py.Object {
    return py.boolean(if (lane.here()) |g| hasOwn(g) else false);
}
