import fc from 'fast-check';

// One failure is enough to notice a mutant: a smaller example of it takes most of the time.
fc.configureGlobal({ endOnFailure: true });
