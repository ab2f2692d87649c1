//! Timers of the native lane: a heap a P (core/heap.zig).
//!
//! A heap has a lock. Its P adds to it; any thread may delete, and a P with nothing to do runs the
//! due timers of others. Firing has two steps, both under the lock: `fire` may use the timer and
//! what it belongs to, and names a goroutine; then the timer leaves the heap for good (`heap` is
//! null), and only then the goroutine is made ready: the timer may lie on its stack. So a thread
//! that finds `heap` null may free the timer, and one that finds it set waits for the lock. The
//! timers of a P that is no longer used stay where they are: the other Ps run them.
const std = @import("std");
const core = @import("../core/heap.zig");

pub fn Timers(comptime Env: type, comptime G: type) type {
    return struct {
        const Self = @This();
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        pub const Timer = struct {
            /// Monotonic nanoseconds.
            when: u64 = 0,
            /// Place in the heap. Under that heap's lock.
            index: u32 = none,
            /// The heap it is in, null if none. Changes under the heap's lock.
            heap: Env.Atomic(?*Self) = .init(null),
            /// Returns the goroutine to wake, if any.
            fire: *const fn (t: *Timer) ?*G = undefined,

            const none = std.math.maxInt(u32);
        };

        /// A timer's address; or that of a goroutine to wake, plus 1: one that sleeps needs no
        /// more, so neither its place is kept nor its stack touched.
        const Tagged = packed struct(usize) {
            address: usize,

            inline fn timer(t: Tagged) ?*Timer {
                return if (t.address & 1 == 0) @ptrFromInt(t.address) else null;
            }

            inline fn sleeper(t: Tagged) *G {
                return @ptrFromInt(t.address - 1);
            }
        };

        fn moved(t: Tagged, place: u32) void {
            if (t.timer()) |timer| timer.index = place;
        }

        const Heap = core.Heap(Tagged, moved);

        pub const never = core.never;
        /// So many due timers are taken out before the first fires: what they belong to is mostly
        /// in no cache, and is fetched meanwhile.
        const ahead = 16;

        lock: Env.Lock = .{},
        due: Heap = .{},
        /// Time of the earliest timer or `never`; how many there are. For a look without the lock.
        earliest: Env.Atomic(u64) = .init(never),
        len: Env.Atomic(u32) = .init(0),

        pub fn deinit(h: *Self, gpa: std.mem.Allocator) void {
            h.due.deinit(gpa);
            h.* = .{};
        }

        /// A timer that is in no heap. True if it is the earliest now.
        pub fn add(h: *Self, gpa: std.mem.Allocator, t: *Timer) error{OutOfMemory}!bool {
            h.lock.lock();
            defer h.lock.unlock();
            const tagged: Tagged = .{ .address = @intFromPtr(t) };
            const is_first = try h.due.add(gpa, .{ .when = t.when, .payload = tagged });
            t.heap.store(h, .monotonic);
            h.publish();
            return is_first;
        }

        /// As add, for a goroutine that sleeps; nothing else can wake it.
        pub fn addSleeper(
            h: *Self,
            gpa: std.mem.Allocator,
            g: *G,
            when: u64,
        ) error{OutOfMemory}!bool {
            h.lock.lock();
            defer h.lock.unlock();
            const tagged: Tagged = .{ .address = @intFromPtr(g) + 1 };
            const is_first = try h.due.add(gpa, .{ .when = when, .payload = tagged });
            h.publish();
            return is_first;
        }

        pub inline fn isEmpty(h: *const Self) bool {
            return h.due.isEmpty();
        }

        /// False if it was in no heap: it has fired, or was never added. After this it does not
        /// fire.
        pub fn remove(t: *Timer) bool {
            while (true) {
                const h = t.heap.load(.acquire) orelse return false;
                h.lock.lock();
                defer h.lock.unlock();
                // Fired meanwhile.
                if (planted != .removes_blindly and t.heap.load(.monotonic) != h) continue;
                h.due.takeOut(t.index);
                t.index = Timer.none;
                h.publish();
                t.heap.store(null, .release);
                return true;
            }
        }

        /// Fires what is due; `context.ready(g)` wakes. Returns how many fired.
        pub fn run(h: *Self, now: u64, context: anytype) u32 {
            h.lock.lock();
            defer h.lock.unlock();
            var fired: u32 = 0;
            while (true) {
                // No other thread can meet a timer that is out of the heap and has not fired yet:
                // that takes the lock.
                var due: [ahead]Tagged = undefined;
                var n: usize = 0;
                while (n < ahead and !h.isEmpty() and h.due.first().when <= now) : (n += 1) {
                    due[n] = h.due.first().payload;
                    @prefetch(@as(*const u8, @ptrFromInt(due[n].address)), .{ .rw = .write });
                    h.due.takeOut(Heap.root);
                }
                for (due[0..n]) |tagged| fire(tagged, context);
                fired += @intCast(n);
                if (n < ahead) break;
            }
            h.publish();
            return fired;
        }

        inline fn fire(tagged: Tagged, context: anytype) void {
            const t = tagged.timer() orelse return context.ready(tagged.sleeper());
            if (planted == .freed_before_fire) t.heap.store(null, .release);
            const g = t.fire(t);
            // Release pairs with the acquire in `remove`: from here on the timer is its owner's.
            if (planted != .freed_before_fire) t.heap.store(null, .release);
            if (g) |sleeper| context.ready(sleeper);
        }

        fn publish(h: *Self) void {
            const first = h.due.earliest();
            if (h.earliest.raw != first) h.earliest.store(first, .release);
            h.len.store(@intCast(h.due.len()), .monotonic);
        }
    };
}
