-- Holds the number 0020 until the file that it belongs to arrives.
SELECT 1;
