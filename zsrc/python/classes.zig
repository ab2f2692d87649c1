//! The classes of the extension module: the one list of them, in the order in which the module gets
//! its types. A class comes behind those that it derives from.
const py = @import("py.zig");
const context = @import("types/context.zig");
const native_chan = @import("types/native_chan.zig");
const mutex = @import("types/mutex.zig");
const timer = @import("types/timer.zig");
const views = @import("types/chan_views.zig");
const rwmutex = @import("types/rwmutex.zig");

pub const all = .{
    context.Class,
    context.RegistrationClass,
    @import("host/signals.zig").Class,
    @import("host/whole.zig").Class,
    @import("types/handle.zig").Class,
    views.BaseClass,
    views.SendClass,
    views.RecvClass,
    @import("types/chan.zig").Class,
    timer.ChanClass,
    @import("types/select.zig").Class,
    timer.Class,
    timer.TickerClass,
    @import("types/waitgroup.zig").Class,
    mutex.Class,
    mutex.GuardClass,
    rwmutex.Class,
    rwmutex.ReaderClass,
    @import("types/cond.zig").Class,
    @import("types/once.zig").Class,
    @import("types/semaphore.zig").Class,
    @import("types/event.zig").Class,
    @import("types/barrier.zig").Class,
    @import("types/pool.zig").Class,
    @import("types/atomic.zig").Class,
    @import("run/native.zig").Class,
    native_chan.Class,
    native_chan.BufferClass,
    @import("types/socket.zig").Class,
};

pub fn has(comptime Class: type) bool {
    for (all) |each| if (each == Class) return true;
    return false;
}

/// Adds the types to the module. False with an exception set.
pub fn add(module: *py.Object) bool {
    inline for (all) |class| if (!class.add(module)) return false;
    return true;
}

/// Whether goroutines wait on objects of that type until other code that has the object wakes them.
pub fn isWaitedOn(t: *py.Type) bool {
    inline for (all) |class| if (class.is_waited_on and class.python_type == t) return true;
    return false;
}

/// What an object holds that the collector does not know of: see Options.held.
pub fn heldBy(o: *py.Object) ?*py.Object {
    inline for (all) |class| {
        if (class.held) |held| if (class.is(o)) return held(class.of(o));
    }
    return null;
}
