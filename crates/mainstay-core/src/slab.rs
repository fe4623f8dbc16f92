//! A slab: values addressed by small numbers, which are reused after removal.

use std::ops::{Index, IndexMut};

/// A vector with holes. A new value gets the lowest free number. Indexing a free number panics.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    entries: Vec<Option<T>>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Returns the number that the next value gets.
    fn vacancy(&self) -> usize {
        let vacant = self.entries.iter().position(Option::is_none);
        vacant.unwrap_or(self.entries.len())
    }

    /// Adds a value and returns its number.
    pub fn add(&mut self, value: T) -> usize {
        let number = self.vacancy();
        self.put(number, value);
        number
    }

    /// Puts a value at the given number and returns the previous value.
    pub fn put(&mut self, number: usize, value: T) -> Option<T> {
        if number >= self.entries.len() {
            self.entries.resize_with(number + 1, || None);
        }
        self.entries[number].replace(value)
    }

    /// Removes a value and returns it.
    pub fn take(&mut self, number: usize) -> Option<T> {
        let taken = self.entries.get_mut(number).and_then(Option::take);
        while let Some(None) = self.entries.last() {
            self.entries.pop();
        }
        taken
    }

    /// Returns the value with this number, if any.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.entries.get(number)?.as_ref()
    }

    /// Returns the value with this number, if any.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.entries.get_mut(number)?.as_mut()
    }

    /// Returns a bound that exceeds every number in use.
    pub fn bound(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        // The last entry is never a hole.
        self.entries.is_empty()
    }

    /// Returns an iterator over all values with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
    }

    /// Returns an iterator over all values with their numbers, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let entries = self.entries.iter_mut().enumerate();
        entries.filter_map(|(number, entry)| Some((number, entry.as_mut()?)))
    }

    /// Removes all values.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl<T> FromIterator<T> for Slab<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self {
            entries: values.into_iter().map(Some).collect(),
        }
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        match &self.entries[number] {
            Some(value) => value,
            None => panic!("nothing has number {number}"),
        }
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        match &mut self.entries[number] {
            Some(value) => value,
            None => panic!("nothing has number {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_kept_and_then_given_again() {
        let mut slab: Slab<char> = "abc".chars().collect();
        assert_eq!((slab.take(1), slab.take(1)), (Some('b'), None));
        assert_eq!(
            (slab[0], slab[2], slab.len(), slab.bound()),
            ('a', 'c', 2, 3)
        );
        assert_eq!((slab.add('d'), slab.add('e')), (1, 3));
        assert_eq!(slab.put(5, 'f'), None);
        assert_eq!(slab.vacancy(), 4);
        let all: Vec<_> = slab
            .iter()
            .map(|(number, value)| (number, *value))
            .collect();
        assert_eq!(all, [(0, 'a'), (1, 'd'), (2, 'c'), (3, 'e'), (5, 'f')]);
        assert_eq!((slab.take(5), slab.bound()), (Some('f'), 4));
        assert_eq!(slab.get(9), None);
    }
}
