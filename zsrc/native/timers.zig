//! Timers: a 4-ary min-heap a P, as in Go (runtime/time.go), with the time beside the pointer so
//! that finding a timer's place touches no timer.
//!
//! A heap has a lock. Its P adds to it; whoever wants may delete, and a P with nothing to do runs
//! the due timers of others. Firing has two steps, both under the lock: `fire` may use the timer
//! and what it belongs to, and names a goroutine; then the timer leaves the heap for good (`heap`
//! is null), and only then the goroutine is made ready, whose stack the timer may lie on. So who
//! finds `heap` null may free the timer, and who finds it set waits for the lock. The timers of a P
//! that is no longer used stay where they are: the other Ps run them.
const std = @import("std");

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

        const Item = struct {
            when: u64,
            /// A timer's address; or that of a goroutine to wake, plus 1: one that sleeps needs no
            /// more, so neither its place is kept nor its stack touched.
            tagged: usize,

            inline fn timer(i: Item) ?*Timer {
                return if (i.tagged & 1 == 0) @ptrFromInt(i.tagged) else null;
            }

            inline fn sleeper(i: Item) *G {
                return @ptrFromInt(i.tagged - 1);
            }
        };

        pub const never = std.math.maxInt(u64);
        const arity = 4;
        /// Where the heap begins in `items`, so that siblings share a cache line: those of the
        /// first generation are in places 4 to 7. The places before are not used.
        const root = arity - 1;
        const line = arity * @sizeOf(Item);
        /// So many due timers are taken out before the first fires: what they belong to is mostly
        /// in no cache, and is fetched meanwhile.
        const ahead = 16;

        lock: Env.Lock = .{},
        items: std.array_list.Aligned(Item, .fromByteUnits(line)) = .empty,
        /// Time of the earliest timer or `never`; how many there are. For a look without the lock.
        earliest: Env.Atomic(u64) = .init(never),
        len: Env.Atomic(u32) = .init(0),

        pub fn deinit(h: *Self, gpa: std.mem.Allocator) void {
            h.items.deinit(gpa);
            h.* = .{};
        }

        /// A timer that is in no heap. True if it is the earliest now.
        pub fn add(h: *Self, gpa: std.mem.Allocator, t: *Timer) error{OutOfMemory}!bool {
            h.lock.lock();
            defer h.lock.unlock();
            try h.makeRoom(gpa);
            t.heap.store(h, .monotonic);
            return h.insert(.{ .when = t.when, .tagged = @intFromPtr(t) });
        }

        /// As add, for a goroutine that sleeps; nothing else can wake it.
        pub fn addSleeper(h: *Self, gpa: std.mem.Allocator, g: *G, when: u64) error{OutOfMemory}!bool {
            h.lock.lock();
            defer h.lock.unlock();
            try h.makeRoom(gpa);
            return h.insert(.{ .when = when, .tagged = @intFromPtr(g) + 1 });
        }

        inline fn makeRoom(h: *Self, gpa: std.mem.Allocator) error{OutOfMemory}!void {
            if (h.items.items.len == 0) try h.items.appendNTimes(gpa, undefined, root);
            try h.items.append(gpa, undefined);
        }

        pub inline fn isEmpty(h: *const Self) bool {
            return h.items.items.len <= root;
        }

        fn insert(h: *Self, item: Item) bool {
            const at = h.up(h.items.items.len - 1, item);
            h.publish();
            return at == root;
        }

        /// False if it was in no heap: it has fired, or was never added. After it nobody fires it.
        pub fn remove(t: *Timer) bool {
            while (true) {
                const h = t.heap.load(.acquire) orelse return false;
                h.lock.lock();
                defer h.lock.unlock();
                // Fired meanwhile.
                if (planted != .removes_blindly and t.heap.load(.monotonic) != h) continue;
                h.takeOut(t.index);
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
                // What is out of the heap and has not fired yet can be met by nobody: that takes
                // the lock.
                var due: [ahead]Item = undefined;
                var n: usize = 0;
                while (n < ahead and !h.isEmpty() and h.items.items[root].when <= now) : (n += 1) {
                    due[n] = h.items.items[root];
                    @prefetch(@as(*const u8, @ptrFromInt(due[n].tagged)), .{ .rw = .write });
                    h.takeOut(root);
                }
                for (due[0..n]) |item| fire(item, context);
                fired += @intCast(n);
                if (n < ahead) break;
            }
            h.publish();
            return fired;
        }

        inline fn fire(item: Item, context: anytype) void {
            const t = item.timer() orelse return context.ready(item.sleeper());
            if (planted == .freed_before_fire) t.heap.store(null, .release);
            const g = t.fire(t);
            // Release pairs with the acquire in `remove`: from here on the timer is its owner's.
            if (planted != .freed_before_fire) t.heap.store(null, .release);
            if (g) |sleeper| context.ready(sleeper);
        }

        fn takeOut(h: *Self, at: usize) void {
            const last = h.items.pop().?;
            if (at == h.items.items.len) return;
            if (at > root and h.items.items[parentOf(at)].when > last.when) {
                _ = h.up(at, last);
            } else h.down(at, last);
        }

        inline fn parentOf(at: usize) usize {
            return at / arity + root - 1;
        }

        inline fn firstChildOf(at: usize) usize {
            return (at - root + 1) * arity;
        }

        fn publish(h: *Self) void {
            const items = h.items.items;
            const first = if (h.isEmpty()) never else items[root].when;
            if (h.earliest.raw != first) h.earliest.store(first, .release);
            h.len.store(@intCast(items.len -| root), .monotonic);
        }

        inline fn put(h: *Self, at: usize, item: Item) void {
            h.items.items[at] = item;
            if (item.timer()) |t| t.index = @intCast(at);
        }

        fn up(h: *Self, start: usize, item: Item) usize {
            var at = start;
            while (at > root) {
                const parent = parentOf(at);
                const p = h.items.items[parent];
                if (p.when <= item.when) break;
                h.put(at, p);
                at = parent;
            }
            h.put(at, item);
            return at;
        }

        fn down(h: *Self, start: usize, item: Item) void {
            const items = h.items.items;
            var at = start;
            while (true) {
                const first = firstChildOf(at);
                if (first >= items.len) break;
                var least = first;
                const end = @min(first + arity, items.len);
                for (first + 1..end) |i| {
                    if (items[i].when < items[least].when) least = i;
                }
                if (items[least].when >= item.when) break;
                h.put(at, items[least]);
                at = least;
            }
            h.put(at, item);
        }
    };
}
