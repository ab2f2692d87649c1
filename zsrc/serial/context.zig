//! Contexts: cancellation that goes down a tree and reaches goroutines where they wait, as Go's
//! package context.
//!
//! A goroutine may have an ambient context (G.context). Lane.park then enters it in the context's
//! list for as long as it waits, so no primitive needs to know of contexts. Cancelling claims the
//! goroutines that wait with `.interrupted`; one that was served first keeps what it got, since a
//! wait has one claim. A cancelled context stays cancelled, and a goroutine that parks under one is
//! interrupted at once: a cancellation that comes between two waits is not lost.
//!
//! A context is a child of its parent while both may still be cancelled. It leaves the tree when it
//! is done, and when the layer above, which owns its memory, gives it up. Only the first of a chain
//! of deadlines has a timer: the later ones cannot come to pass.
//!
//! Everything here needs the lane's lock, and runs nothing of the layer above but `on_done`.
const std = @import("std");
const G = @import("g.zig").G;
const Timer = @import("timer.zig").Timer;
const List = @import("../core/list.zig").List;
const Allocator = std.mem.Allocator;

pub const State = enum(u8) { live, cancelled, expired };

pub const never = std.math.maxInt(u64);

pub const Context = struct {
    state: State = .live,
    /// The context that was cancelled, this one or an ancestor. Null while it is live.
    origin: ?*Context = null,
    parent: ?*Context = null,
    /// The last first.
    children: List(Context) = .{},
    /// Links among the parent's children.
    prev: ?*Context = null,
    next: ?*Context = null,
    /// Goroutines of the run `waiting_in` that wait under it, the last first.
    waiters: ?*G = null,
    waiting_in: u32 = 0,
    /// Monotonic ns; its own or an ancestor's, whichever is earlier.
    deadline: u64 = never,
    /// The deadline is its own.
    timed: bool = false,
    timer: Timer = .{},
    /// The run in which its timers, and its ancestors', were set.
    generation: u32 = 0,
    /// Called when it is done. May make goroutines ready or start them, and nothing else.
    on_done: *const fn (*Context) void,

    pub inline fn done(c: *const Context) bool {
        return c.state != .live;
    }

    fn addChild(c: *Context, child: *Context) void {
        child.parent = c;
        c.children.pushFront(child);
    }

    fn leaveTree(c: *Context) void {
        const parent = c.parent orelse return;
        parent.children.remove(c);
        c.parent = null;
    }

    /// The outermost context with a deadline that is over by `now`: the one that its timer would
    /// cancel first.
    fn overdue(c: *Context, now: u64) ?*Context {
        var found: ?*Context = null;
        var it: ?*Context = c;
        while (it) |x| : (it = x.parent) {
            if (x.timed and x.deadline <= now) found = x;
        }
        return found;
    }
};

/// Ends the wait's entry in the context's list, if it has one.
pub inline fn unwatch(g: *G) void {
    const link = g.watch_link orelse return;
    link.* = g.watch_next;
    if (g.watch_next) |n| n.watch_link = link;
    g.watch_link = null;
    g.watch_next = null;
}

fn watch(c: *Context, g: *G) void {
    g.watch_link = &c.waiters;
    g.watch_next = c.waiters;
    if (c.waiters) |first| first.watch_link = &g.watch_next;
    c.waiters = g;
}

/// The part of a Lane that is about contexts.
pub fn Contexts(comptime Lane: type, comptime Host: type) type {
    return struct {
        const Self = Lane;

        /// Puts a new context under `parent`, which has cancelled it already if it is done itself.
        pub fn attachContext(
            self: *Self,
            c: *Context,
            parent: ?*Context,
            deadline: u64,
        ) Allocator.Error!void {
            c.deadline = deadline;
            c.timed = deadline != never;
            if (parent) |p| {
                expireContext(self, p);
                if (p.deadline <= deadline) {
                    c.deadline = p.deadline;
                    c.timed = false;
                }
                if (p.done()) {
                    c.state = p.state;
                    c.origin = p.origin;
                    return;
                }
                p.addChild(c);
            }
            errdefer c.leaveTree();
            if (c.timed and deadline <= self.now()) return cancelContext(self, c, .expired);
            try armContext(self, c);
        }

        /// Gives a context up. No goroutine waits under it, and it has no children.
        pub fn detachContext(self: *Self, c: *Context) void {
            std.debug.assert(c.children.head == null);
            std.debug.assert(c.waiters == null or c.waiting_in != self.generation);
            disarm(self, c);
            c.leaveTree();
        }

        /// Sets its timer and its ancestors', which an earlier run or none may have left unset.
        pub fn armContext(self: *Self, c: *Context) Allocator.Error!void {
            if (!self.live) return;
            var it: ?*Context = c;
            while (it) |x| : (it = x.parent) {
                if (x.generation == self.generation) return;
                if (x.timed and !x.done()) try self.addContextTimer(x);
                x.generation = self.generation;
            }
        }

        fn disarm(self: *Self, c: *Context) void {
            if (c.timer.pending() and self.live and c.generation == self.generation) {
                self.timers.remove(&c.timer);
                self.user_timers -= 1;
            }
            c.timer.index = Timer.none;
        }

        pub fn addContextTimer(self: *Self, c: *Context) Allocator.Error!void {
            c.timer = .{ .when = c.deadline, .fire = fire };
            try self.timers.add(self.gpa, &c.timer);
            self.user_timers += 1;
            // A thread outside of the lane may have set it.
            if (self.poller != null and c.deadline < self.poller_deadline) Host.pollBreak();
        }

        fn fire(t: *Timer) callconv(.c) void {
            const self = Host.lane();
            self.user_timers -= 1;
            cancelContext(self, @alignCast(@fieldParentPtr("timer", t)), .expired);
        }

        /// Does at once what its timer, or an ancestor's, would do a moment later.
        pub fn expireContext(self: *Self, c: *Context) void {
            if (c.done() or c.deadline == never) return;
            const now = self.now();
            if (c.deadline > now) return;
            if (c.overdue(now)) |x| cancelContext(self, x, .expired);
        }

        /// Cancels it and all below it. Nothing happens to one that is done.
        pub fn cancelContext(self: *Self, root: *Context, state: State) void {
            if (root.done()) return;
            root.leaveTree();
            var work: ?*Context = root;
            while (work) |c| {
                work = c.next;
                c.next = null;
                c.state = state;
                c.origin = root;
                disarm(self, c);
                while (c.children.head) |child| {
                    child.leaveTree();
                    child.next = work;
                    work = child;
                }
                interruptWaiters(self, c);
                c.on_done(c);
            }
        }

        /// Those that have waited longest go on first.
        fn interruptWaiters(self: *Self, c: *Context) void {
            dropStale(self, c);
            var reversed: ?*G = null;
            while (c.waiters) |g| {
                unwatch(g);
                g.watch_next = reversed;
                reversed = g;
            }
            while (reversed) |g| {
                reversed = g.watch_next;
                g.watch_next = null;
                if (self.claim(g, .interrupted)) self.readyLast(g);
            }
        }

        /// What a run has left behind does not go on in another.
        fn dropStale(self: *Self, c: *Context) void {
            if (!self.live or c.waiting_in != self.generation) c.waiters = null;
        }

        /// Of a goroutine that is about to wait under `c`.
        pub fn watchContext(self: *Self, c: *Context, g: *G) void {
            if (!c.done()) {
                dropStale(self, c);
                c.waiting_in = self.generation;
                return watch(c, g);
            }
            if (self.claim(g, .interrupted)) self.ready(g);
        }
    };
}
